//! One compiled path pattern.
//!
//! In: a clean pattern and the language it is in. Out: [`Matcher`], which tells whether bytes of a path match. Matching steps
//! through the path once, with all alternatives as bits: no pattern takes exponential time, and none but huge ones allocates.
//! Most paths are told by the pattern's literal start and end alone.
//!
//! Both languages are that of Go's `filepath.Match` (`*` and `?` stay within a component, `[a-z]` `[^a]`, backslash escapes);
//! the deep one adds `**`, translated as moby's patternmatcher does: `**/` and `**` before text are any leading components or
//! none, `**` at the end is anything, and a leading `**` before plain text is "ends in".

/// The languages of patterns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    /// `**` is two stars.
    Plain,
    /// `**` crosses components.
    Deep,
}

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SyntaxError {
    #[error("`[` is not closed")]
    OpenClass,
    #[error("`[…]` is empty, or `-` or `]` stands in it without a backslash")]
    BadClass,
    #[error("it ends in a backslash")]
    TrailingEscape,
}

#[derive(Clone, Debug)]
pub(super) struct Matcher {
    units: Vec<Unit>,
    kind: Kind,
    /// Every match starts so.
    prefix: Vec<u8>,
    /// Every match ends so.
    suffix: Vec<u8>,
    /// How many units `prefix` stands for.
    prefix_units: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `prefix` alone.
    Exact,
    /// `prefix`, then anything.
    StartsWith,
    /// `**` before plain text. `**/name` also matches `name`.
    EndsWith,
    /// `prefix`, one star, `suffix`.
    OneStar,
    General,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Unit {
    Character(char),
    /// `?`
    Any,
    /// `*`
    Star,
    /// Leading components or none; always followed by `DeepInside`, which is the state between the two.
    DeepEnter,
    DeepInside,
    /// Anything to the end.
    Rest,
    Class(Class),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Class {
    negated: bool,
    ranges: Vec<(char, char)>,
    /// Whether it may match `/`.
    slash: bool,
}

const SLASH: u32 = '/' as u32;

/// Bits that live on the stack.
const SMALL: usize = 4;

impl Matcher {
    pub(super) fn new(pattern: &str, language: Language) -> Result<Matcher, SyntaxError> {
        let units = parse(pattern, language)?;
        let kind = kind(&units, pattern);
        let prefix_units = literal_length(units.iter());
        let suffix_units = match kind {
            Kind::Exact => 0,
            _ => literal_length(units.iter().rev()),
        };
        let prefix = literal(&units[..prefix_units]);
        let mut suffix = literal(&units[units.len() - suffix_units..]);
        if kind == Kind::EndsWith && pattern.starts_with("**/") {
            suffix.insert(0, b'/');
        }
        Ok(Matcher {
            kind,
            prefix,
            suffix,
            prefix_units,
            units,
        })
    }

    pub(super) fn matches(&self, path: &[u8]) -> bool {
        if !self.has_literals(path) {
            return self.kind == Kind::EndsWith && self.suffix.strip_prefix(b"/") == Some(path);
        }
        match self.kind {
            Kind::Exact => path.len() == self.prefix.len(),
            Kind::StartsWith | Kind::EndsWith => true,
            Kind::OneStar => {
                !path[self.prefix.len()..path.len() - self.suffix.len()].contains(&b'/')
            }
            Kind::General => self.simulate(&path[self.prefix.len()..], |bits| {
                bits.has(self.units.len())
            }),
        }
    }

    /// Tells whether a path starts and ends as a match must. One byte of each tells most paths.
    fn has_literals(&self, path: &[u8]) -> bool {
        let (prefix, suffix) = (self.prefix.as_slice(), self.suffix.as_slice());
        path.len() >= prefix.len() + suffix.len()
            && (suffix.is_empty() || suffix.last() == path.last())
            && (prefix.is_empty() || prefix.first() == path.first())
            && path.ends_with(suffix)
            && path.starts_with(prefix)
    }

    /// Tells whether a path that starts with `directory` and a `/` can match.
    pub(super) fn may_match_below(&self, directory: &[u8]) -> bool {
        if self.kind == Kind::EndsWith || directory.is_empty() {
            return true;
        }
        let shared = self.prefix.len().min(directory.len());
        if self.prefix[..shared] != directory[..shared] {
            return false;
        }
        if shared < self.prefix.len() {
            return self.prefix[shared] == b'/';
        }
        let rest: Vec<u8> = [&directory[shared..], b"/"].concat();
        self.simulate(&rest, |bits| bits.any_but(self.units.len()))
    }

    /// Steps through what follows the literal prefix and asks about the states that are left.
    fn simulate(&self, rest: &[u8], ask: impl Fn(&Bits<'_>) -> bool) -> bool {
        let words = self.units.len() / 64 + 1;
        if words <= SMALL {
            let (mut now, mut next) = ([0; SMALL], [0; SMALL]);
            self.run(rest, Bits(&mut now[..words]), Bits(&mut next[..words]), ask)
        } else {
            let (mut now, mut next) = (vec![0; words], vec![0; words]);
            self.run(rest, Bits(&mut now), Bits(&mut next), ask)
        }
    }

    fn run<'a>(
        &self,
        mut rest: &[u8],
        mut now: Bits<'a>,
        mut next: Bits<'a>,
        ask: impl Fn(&Bits<'_>) -> bool,
    ) -> bool {
        self.enter(&mut now, self.prefix_units);
        while !rest.is_empty() {
            let (character, length) = decode(rest);
            rest = &rest[length..];
            next.0.fill(0);
            for word in 0..now.0.len() {
                let mut bits = now.0[word];
                while bits != 0 {
                    let state = word * 64 + bits.trailing_zeros() as usize;
                    bits &= bits - 1;
                    self.step(state, character, &mut next);
                }
            }
            std::mem::swap(&mut now, &mut next);
            if now.0.iter().all(|&word| word == 0) {
                return false;
            }
        }
        ask(&now)
    }

    fn step(&self, state: usize, character: u32, next: &mut Bits<'_>) {
        match self.units.get(state) {
            Some(Unit::Character(wanted)) if *wanted as u32 == character => {
                self.enter(next, state + 1)
            }
            Some(Unit::Any) if character != SLASH => self.enter(next, state + 1),
            Some(Unit::Star) if character != SLASH => self.enter(next, state),
            Some(Unit::Rest) => self.enter(next, state),
            Some(Unit::DeepInside) => {
                next.set(state);
                if character == SLASH {
                    self.enter(next, state + 1);
                }
            }
            Some(Unit::Class(class)) if class.has(character) => self.enter(next, state + 1),
            _ => {}
        }
    }

    /// Makes a state live, and those that are reached from it without a character.
    fn enter(&self, bits: &mut Bits<'_>, mut state: usize) {
        while !bits.has(state) {
            bits.set(state);
            match self.units.get(state) {
                Some(Unit::Star | Unit::Rest) => state += 1,
                Some(Unit::DeepEnter) => {
                    bits.set(state + 1);
                    state += 2;
                }
                _ => return,
            }
        }
    }
}

struct Bits<'a>(&'a mut [u64]);

impl Bits<'_> {
    fn has(&self, bit: usize) -> bool {
        self.0[bit / 64] & (1 << (bit % 64)) != 0
    }

    fn set(&mut self, bit: usize) {
        self.0[bit / 64] |= 1 << (bit % 64);
    }

    fn any_but(&self, bit: usize) -> bool {
        self.0.iter().enumerate().any(|(index, &word)| {
            let but = if bit / 64 == index {
                1 << (bit % 64)
            } else {
                0
            };
            word & !but != 0
        })
    }
}

impl Class {
    fn has(&self, character: u32) -> bool {
        if character == SLASH && !self.slash {
            return false;
        }
        let within = self
            .ranges
            .iter()
            .any(|&(low, high)| (low as u32..=high as u32).contains(&character));
        within != self.negated
    }
}

fn parse(pattern: &str, language: Language) -> Result<Vec<Unit>, SyntaxError> {
    let mut units = Vec::new();
    let mut characters = pattern.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '*' if language == Language::Deep && characters.next_if_eq(&'*').is_some() => {
                characters.next_if_eq(&'/');
                if characters.peek().is_none() {
                    units.push(Unit::Rest);
                } else {
                    units.extend([Unit::DeepEnter, Unit::DeepInside]);
                }
            }
            '*' if units.last() == Some(&Unit::Star) => {}
            '*' => units.push(Unit::Star),
            '?' => units.push(Unit::Any),
            '[' => units.push(Unit::Class(class(&mut characters, language)?)),
            '\\' => {
                let escaped = characters.next().ok_or(SyntaxError::TrailingEscape)?;
                units.push(Unit::Character(escaped));
            }
            other => units.push(Unit::Character(other)),
        }
    }
    Ok(units)
}

/// Reads a class after its `[`.
fn class(
    characters: &mut std::iter::Peekable<std::str::Chars<'_>>,
    language: Language,
) -> Result<Class, SyntaxError> {
    let negated = characters.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && characters.next_if_eq(&']').is_some() {
            return Ok(Class {
                negated,
                ranges,
                slash: language == Language::Deep,
            });
        }
        let low = class_character(characters)?;
        let high = match characters.next_if_eq(&'-') {
            Some(_) => class_character(characters)?,
            None => low,
        };
        ranges.push((low, high));
        if characters.peek().is_none() {
            return Err(SyntaxError::OpenClass);
        }
    }
}

fn class_character(
    characters: &mut std::iter::Peekable<std::str::Chars<'_>>,
) -> Result<char, SyntaxError> {
    match characters.next() {
        None => Err(SyntaxError::OpenClass),
        Some('-' | ']') => Err(SyntaxError::BadClass),
        Some('\\') => characters.next().ok_or(SyntaxError::TrailingEscape),
        Some(other) => Ok(other),
    }
}

fn kind(units: &[Unit], pattern: &str) -> Kind {
    let is_literal = |units: &[Unit]| units.iter().all(|unit| matches!(unit, Unit::Character(_)));
    let wild: Vec<&Unit> = units
        .iter()
        .filter(|unit| !matches!(unit, Unit::Character(_)))
        .collect();
    match wild.as_slice() {
        [] => Kind::Exact,
        [Unit::Rest] => Kind::StartsWith,
        [Unit::Star] => Kind::OneStar,
        // Without a slash, plain text behind `**` may start within a name, unless it is escaped: so moby has it.
        [Unit::DeepEnter, Unit::DeepInside]
            if is_literal(&units[2..])
                && (pattern.starts_with("**/") || !pattern.contains('\\')) =>
        {
            Kind::EndsWith
        }
        _ => Kind::General,
    }
}

fn literal_length<'a>(units: impl Iterator<Item = &'a Unit>) -> usize {
    units
        .take_while(|unit| matches!(unit, Unit::Character(_)))
        .count()
}

fn literal(units: &[Unit]) -> Vec<u8> {
    let text: String = units
        .iter()
        .filter_map(|unit| match unit {
            Unit::Character(character) => Some(*character),
            _ => None,
        })
        .collect();
    text.into_bytes()
}

/// Returns the first character of a path and its length. A byte that is no UTF-8 is a character of its own, beyond all others.
fn decode(path: &[u8]) -> (u32, usize) {
    let first = path[0];
    if first.is_ascii() {
        return (u32::from(first), 1);
    }
    let length = match first {
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf7 => 4,
        _ => 1,
    };
    let character = path
        .get(..length)
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .and_then(|text| text.chars().next());
    match character {
        Some(character) => (character as u32, length),
        None => (0x11_0000 + u32::from(first), 1),
    }
}
