//! Shell patterns inside `${name#pattern}`, `${name%pattern}` and `${name/pattern/text}`.
//!
//! `*` is any text and `?` any character of one line; a backslash takes `*`, `?`, `\`, `/` and `}` literally and nothing
//! else. There are no classes. Matching simulates all alternatives at once: no pattern takes exponential time.

/// Which of several possible matches is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    Shortest,
    Longest,
}

/// Removes a match at the start.
pub(super) fn trim_prefix(value: &str, pattern: &str, length: Length) -> Result<String, String> {
    let tokens = parse(pattern)?;
    let characters: Vec<char> = value.chars().collect();
    let end = find_end(&tokens, &characters, length).end.unwrap_or(0);
    Ok(characters[end..].iter().collect())
}

/// Removes a match at the end.
pub(super) fn trim_suffix(value: &str, pattern: &str, length: Length) -> Result<String, String> {
    let mut tokens = parse(pattern)?;
    tokens.reverse();
    let characters: Vec<char> = value.chars().rev().collect();
    let end = find_end(&tokens, &characters, length).end.unwrap_or(0);
    Ok(characters[end..].iter().rev().collect())
}

/// Replaces the first match, or all of them. Matches are as long as possible.
pub(super) fn replace(
    value: &str,
    pattern: &str,
    replacement: &str,
    all: bool,
) -> Result<String, String> {
    let tokens = parse(pattern)?;
    let characters: Vec<char> = value.chars().collect();
    let mut result = String::new();
    let mut at = 0;
    let mut last_end = None;
    let mut hopeless_before = 0;
    while at <= characters.len() {
        let found = if at < hopeless_before {
            None
        } else {
            let search = find_end(&tokens, &characters[at..], Length::Longest);
            if search.end.is_none() && search.reached_star {
                // What a `*` was to find is not in this line behind `at`, so it is not behind later places either.
                let line_end = characters[at..].iter().position(|&c| c == '\n');
                hopeless_before = line_end.map_or(usize::MAX, |length| at + length + 1);
            }
            search.end
        };
        match found {
            // Nothing is found right behind a match.
            Some(length) if length > 0 || last_end != Some(at) => {
                result.push_str(replacement);
                at += length;
                last_end = Some(at);
                if !all {
                    break;
                }
                if length == 0 {
                    result.extend(characters.get(at));
                    at += 1;
                }
            }
            _ => {
                result.extend(characters.get(at));
                at += 1;
            }
        }
    }
    result.extend(characters.get(at..).unwrap_or_default());
    Ok(result)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Character(char),
    Any,
    Star,
}

fn parse(pattern: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        tokens.push(match character {
            '*' => Token::Star,
            '?' => Token::Any,
            '\\' => match characters.next() {
                Some(escaped @ ('*' | '?' | '\\' | '/' | '}')) => Token::Character(escaped),
                Some(other) => return Err(format!("`\\{other}` is no escape")),
                None => return Err("it ends in a backslash".to_owned()),
            },
            other => Token::Character(other),
        });
    }
    // Stars in a row mean what one does.
    tokens.dedup_by(|next, kept| *next == Token::Star && *kept == Token::Star);
    Ok(tokens)
}

struct Search {
    /// How many characters a match at the start takes.
    end: Option<usize>,
    reached_star: bool,
}

fn find_end(tokens: &[Token], characters: &[char], length: Length) -> Search {
    let mut search = Search {
        end: None,
        reached_star: false,
    };
    // alive[i]: tokens before i are matched.
    let mut alive = vec![false; tokens.len() + 1];
    let mut next = alive.clone();
    alive[0] = true;
    for position in 0..=characters.len() {
        for (index, token) in tokens.iter().enumerate() {
            if alive[index] && *token == Token::Star {
                alive[index + 1] = true;
                search.reached_star = true;
            }
        }
        if alive[tokens.len()] {
            search.end = Some(position);
            if length == Length::Shortest {
                break;
            }
        }
        let Some(&character) = characters.get(position) else {
            break;
        };
        next.fill(false);
        let mut any = false;
        for (index, token) in tokens.iter().enumerate() {
            if !alive[index] {
                continue;
            }
            match token {
                Token::Star if character != '\n' => next[index] = true,
                Token::Any if character != '\n' => next[index + 1] = true,
                Token::Character(wanted) if *wanted == character => next[index + 1] = true,
                _ => continue,
            }
            any = true;
        }
        if !any {
            break;
        }
        std::mem::swap(&mut alive, &mut next);
    }
    search
}
