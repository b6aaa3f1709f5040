//! The tokenizer: splits a master file into entries and words (RFC 1035 section 5.1).
//!
//! It borrows every word and keeps escapes, because `\.` in a name and `\"` in a string need different
//! handling. An entry ends with its line unless a parenthesis is open.

use super::problem::{EntryError, EntryProblem, shown};
use crate::store::record::FilePlace;

#[derive(Debug)]
pub(crate) struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    behind: usize,
    depth: u32,
    opened: usize,
    ended: bool,
    line: u32,
    line_start: usize,
    entry: (u32, usize),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct ZoneFileWord<'a> {
    /// The raw text with escapes, without enclosing quotes. `key="value"` is one word.
    pub(crate) text: &'a [u8],
    pub(crate) at: usize,
    pub(crate) quoted: bool,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        let at = if text.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        Self { text, at, behind: at, depth: 0, opened: 0, ended: true, line: 1, line_start: 0, entry: (1, 0) }
    }

    /// The first word of the next nonblank entry, and true if blanks precede it.
    pub(crate) fn next_entry(&mut self) -> Option<Result<(ZoneFileWord<'a>, bool), EntryError>> {
        while !self.ended {
            drop(self.next());
        }
        while let Some(&first) = self.text.get(self.at) {
            self.ended = false;
            self.depth = 0;
            self.behind = self.at;
            self.entry = (self.line, self.line_start);
            match self.next() {
                Ok(None) => {}
                Ok(Some(word)) => return Some(Ok((word, matches!(first, b' ' | b'\t')))),
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }

    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<ZoneFileWord<'a>>, EntryError> {
        while !self.ended {
            let Some(&octet) = self.text.get(self.at) else {
                self.ended = true;
                if self.depth > 0 {
                    return Err(EntryError::new(self.opened, EntryProblem::UnclosedParenthesis));
                }
                break;
            };
            match KINDS[usize::from(octet)] {
                ByteKind::Plain | ByteKind::Escape => return self.word().map(Some),
                ByteKind::Blank => self.at += 1,
                ByteKind::Newline => {
                    self.at += 1;
                    self.line += 1;
                    self.line_start = self.at;
                    self.ended = self.depth == 0;
                }
                ByteKind::Quote => return self.quoted().map(Some),
                ByteKind::Comment => self.at = self.end_of_line(self.at),
                ByteKind::Open => {
                    if self.depth == 0 {
                        self.opened = self.at;
                    }
                    self.depth += 1;
                    self.at += 1;
                }
                ByteKind::Close => {
                    self.at += 1;
                    let open = self.depth.checked_sub(1);
                    self.depth = open.ok_or_else(|| EntryError::new(self.at - 1, EntryProblem::StrayParenthesis))?;
                }
            }
        }
        Ok(None)
    }

    pub(crate) fn put_back(&mut self, word: ZoneFileWord<'a>) {
        self.at = word.at;
    }

    /// The offset after the last word read, where a missing word is reported.
    pub(crate) fn behind(&self) -> usize {
        self.behind
    }

    pub(crate) fn place(&self, at: usize, file: u16) -> FilePlace {
        let (mut line, mut start) = self.entry;
        let before = self.text.get(start..at).unwrap_or_default();
        let first = start;
        for (index, _) in before.iter().enumerate().filter(|(_, octet)| **octet == b'\n') {
            line += 1;
            start = first + index + 1;
        }
        FilePlace { file, line, column: u32::try_from(at - start).map_or(u32::MAX, |column| column.saturating_add(1)) }
    }

    #[inline]
    fn word(&mut self) -> Result<ZoneFileWord<'a>, EntryError> {
        let start = self.at;
        let mut at = start;
        while let Some(&octet) = self.text.get(at) {
            match KINDS[usize::from(octet)] {
                ByteKind::Plain => at += 1,
                ByteKind::Escape => at = self.behind_escape(at),
                ByteKind::Quote => at = self.closing_quote(at)? + 1,
                ByteKind::Blank | ByteKind::Newline | ByteKind::Comment | ByteKind::Open | ByteKind::Close => break,
            }
        }
        (self.at, self.behind) = (at, at);
        Ok(ZoneFileWord { text: self.text.get(start..at).unwrap_or_default(), at: start, quoted: false })
    }

    fn quoted(&mut self) -> Result<ZoneFileWord<'a>, EntryError> {
        let start = self.at;
        let close = self.closing_quote(start)?;
        (self.at, self.behind) = (close + 1, close + 1);
        Ok(ZoneFileWord { text: self.text.get(start + 1..close).unwrap_or_default(), at: start, quoted: true })
    }

    /// Finds the quote that closes the one at `open`. If there is none, the rest of the line is skipped.
    fn closing_quote(&mut self, open: usize) -> Result<usize, EntryError> {
        let mut at = open + 1;
        loop {
            match self.text.get(at) {
                Some(b'"') => return Ok(at),
                Some(b'\\') => at = self.behind_escape(at),
                None | Some(b'\n') => {
                    self.at = at;
                    return Err(EntryError::new(open, EntryProblem::UnclosedQuote));
                }
                Some(_) => at += 1,
            }
        }
    }

    /// The offset after the `\` at this place and its byte. A newline cannot be escaped.
    fn behind_escape(&self, at: usize) -> usize {
        match self.text.get(at + 1) {
            None | Some(b'\n' | b'\r') => at + 1,
            Some(_) => at + 2,
        }
    }

    fn end_of_line(&self, from: usize) -> usize {
        let rest = self.text.get(from..).unwrap_or_default();
        from + rest.iter().position(|octet| *octet == b'\n').unwrap_or(rest.len())
    }
}

impl<'a> ZoneFileWord<'a> {
    pub(crate) fn is(self, keyword: &str) -> bool {
        !self.quoted && self.text.eq_ignore_ascii_case(keyword.as_bytes())
    }

    /// The word as text. It is empty if the word is not ASCII, because no keyword is empty.
    pub(crate) fn as_str(self) -> &'a str {
        std::str::from_utf8(self.text).ok().filter(|text| text.is_ascii()).unwrap_or_default()
    }

    #[cold]
    pub(crate) fn error(self, problem: impl FnOnce(String) -> EntryProblem) -> EntryError {
        EntryError::new(self.at, problem(shown(self.text)))
    }

    #[cold]
    pub(crate) fn bad(self, thing: &'static str, expected: &'static str) -> EntryError {
        self.error(|found| EntryProblem::Bad { thing, found, expected })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ByteKind {
    Plain,
    /// A space, a tab, or a carriage return, so that CRLF ends a line.
    Blank,
    Newline,
    Comment,
    Open,
    Close,
    Quote,
    Escape,
}

const KINDS: [ByteKind; 256] = {
    let mut kinds = [ByteKind::Plain; 256];
    kinds[b' ' as usize] = ByteKind::Blank;
    kinds[b'\t' as usize] = ByteKind::Blank;
    kinds[b'\r' as usize] = ByteKind::Blank;
    kinds[b'\n' as usize] = ByteKind::Newline;
    kinds[b';' as usize] = ByteKind::Comment;
    kinds[b'(' as usize] = ByteKind::Open;
    kinds[b')' as usize] = ByteKind::Close;
    kinds[b'"' as usize] = ByteKind::Quote;
    kinds[b'\\' as usize] = ByteKind::Escape;
    kinds
};

/// The UTF-8 byte order mark, which some editors write first.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
