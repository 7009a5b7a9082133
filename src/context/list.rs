//! Everything that a source holds, for a user who asks what is in the context.

use super::error::ContextError;
use super::source::Source;
use super::walk::{Visit, Walk};

/// Returns the paths of all files that are in, directories before their contents and with a `/` at their end.
pub fn list(source: &Source) -> impl Iterator<Item = Result<Vec<u8>, ContextError>> {
    let mut state = State::New(source);
    std::iter::from_fn(move || {
        loop {
            let walk = match &mut state {
                State::Done => return None,
                State::Walking(walk) => walk,
                State::New(source) => match Walk::new(source, b"", &[], b"") {
                    Ok(walk) => {
                        state = State::Walking(Box::new(walk));
                        continue;
                    }
                    Err(error) => {
                        state = State::Done;
                        return Some(Err(error));
                    }
                },
            };
            let path = match walk.next() {
                Ok(Some(Visit::Leave)) => continue,
                Ok(Some(Visit::Leaf(node))) => node.path.to_vec(),
                Ok(Some(Visit::Enter { node, .. })) => [node.path, b"/"].concat(),
                Ok(None) => return None,
                Err(error) => {
                    state = State::Done;
                    return Some(Err(error));
                }
            };
            return Some(Ok(path));
        }
    })
}

enum State<'a> {
    New(&'a Source),
    Walking(Box<Walk<'a>>),
    Done,
}
