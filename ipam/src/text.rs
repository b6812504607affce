//! Texts that share one buffer.
//!
//! Reading a log is a part of every ADD, and copying two texts for each of 4 000 leases, to free them again a moment later,
//! took longer than everything else about it. A text of a log is therefore a window on what was read.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A text, or a part of a larger one that stays in memory as long as any of its parts.
#[derive(Clone)]
pub(crate) struct Text {
    buffer: Arc<Vec<u8>>,
    start: usize,
    end: usize,
}

impl Text {
    /// The window on `part`, which is a part of `buffer`. Any other text is copied.
    pub(crate) fn within(buffer: &Arc<Vec<u8>>, part: &str) -> Self {
        let start = part.as_ptr().addr().wrapping_sub(buffer.as_ptr().addr());
        let end = start.wrapping_add(part.len());
        let is_part = buffer.get(start..end).is_some_and(|window| std::ptr::eq(window, part.as_bytes()));
        if is_part { Self { buffer: buffer.clone(), start, end } } else { part.to_owned().into() }
    }

    pub(crate) fn as_str(&self) -> &str {
        // It was a `str` when it was made, and nobody writes to the buffer.
        str::from_utf8(self.bytes()).unwrap_or_default()
    }

    fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self { start: 0, end: text.len(), buffer: Arc::new(text.into_bytes()) }
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Text {}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes().hash(state);
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_a_window_and_any_other_text_a_copy() {
        let buffer = Arc::new(b"one two".to_vec());
        let whole = str::from_utf8(&buffer).unwrap();
        let part = Text::within(&buffer, &whole[4..]);
        assert_eq!((part.as_str(), Arc::strong_count(&buffer)), ("two", 2));
        let other = Text::within(&buffer, "two");
        assert_eq!((&other, Arc::strong_count(&buffer)), (&part, 2));
        assert_eq!(Text::within(&buffer, "").as_str(), "");
    }
}
