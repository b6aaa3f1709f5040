//! The tokenizer: splits a master file into entries and these into words (RFC 1035 section 5.1).
//!
//! Works on octets and borrows every word; allocates nothing. An entry ends with its line unless a parenthesis is open.
//! Escapes are not resolved here, since `\.` in a name and `\"` in a string are for those who know which is which.

use super::problem::{EntryError, EntryProblem, shown};
use crate::zone::store::record::Place;

/// A file on its way through the tokenizer.
#[derive(Debug)]
pub(in crate::zone) struct Lexer<'a> {
    /// All of the file.
    text: &'a [u8],
    /// The next octet.
    at: usize,
    /// Behind the last word.
    behind: usize,
    /// Parentheses that are open.
    depth: u32,
    /// The first of them.
    opened: usize,
    /// Whether the entry has ended.
    ended: bool,
    /// The number of the line.
    line: u32,
    /// Its first octet.
    line_start: usize,
    /// Number and first octet of the entry's first line.
    entry: (u32, usize),
}

/// A word of an entry.
#[derive(Clone, Copy, Debug)]
pub(in crate::zone) struct Word<'a> {
    /// What was written, escapes and all; of a quoted word what is between the quotes. `key="value"` is one word.
    pub(in crate::zone) text: &'a [u8],
    /// Its first octet in the file.
    pub(in crate::zone) at: usize,
    /// Whether it stood in quotes.
    pub(in crate::zone) quoted: bool,
}

impl<'a> Lexer<'a> {
    /// Stands at the start of a file.
    pub(in crate::zone) fn new(text: &'a [u8]) -> Self {
        let at = if text.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        Self { text, at, behind: at, depth: 0, opened: 0, ended: true, line: 1, line_start: 0, entry: (1, 0) }
    }

    /// Goes to the next entry that is not blank. Returns its first word and whether blanks stood before that; `None` at
    /// the end of the file.
    pub(in crate::zone) fn next_entry(&mut self) -> Option<Result<(Word<'a>, bool), EntryError>> {
        while !self.ended {
            // What is wrong behind a first error of an entry would only confuse.
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

    /// The next word of the entry; `None` at its end.
    #[inline]
    pub(in crate::zone) fn next(&mut self) -> Result<Option<Word<'a>>, EntryError> {
        while !self.ended {
            let Some(&octet) = self.text.get(self.at) else {
                self.ended = true;
                if self.depth > 0 {
                    return Err(EntryError::new(self.opened, EntryProblem::UnclosedParenthesis));
                }
                break;
            };
            match KINDS[usize::from(octet)] {
                Kind::Plain | Kind::Escape => return self.word().map(Some),
                Kind::Blank => self.at += 1,
                Kind::Newline => {
                    self.at += 1;
                    self.line += 1;
                    self.line_start = self.at;
                    self.ended = self.depth == 0;
                }
                Kind::Quote => return self.quoted().map(Some),
                Kind::Comment => self.at = self.end_of_line(self.at),
                Kind::Open => {
                    if self.depth == 0 {
                        self.opened = self.at;
                    }
                    self.depth += 1;
                    self.at += 1;
                }
                Kind::Close => {
                    self.at += 1;
                    let open = self.depth.checked_sub(1);
                    self.depth = open.ok_or_else(|| EntryError::new(self.at - 1, EntryProblem::StrayParenthesis))?;
                }
            }
        }
        Ok(None)
    }

    /// Makes the word that came last the next one again.
    pub(in crate::zone) fn put_back(&mut self, word: Word<'a>) {
        self.at = word.at;
    }

    /// Behind the last word that was read: where more of them are missed.
    pub(in crate::zone) fn behind(&self) -> usize {
        self.behind
    }

    /// The place of an octet of the entry, in this file.
    pub(in crate::zone) fn place(&self, at: usize, file: u16) -> Place {
        let (mut line, mut start) = self.entry;
        let before = self.text.get(start..at).unwrap_or_default();
        let first = start;
        for (index, _) in before.iter().enumerate().filter(|(_, octet)| **octet == b'\n') {
            line += 1;
            start = first + index + 1;
        }
        Place { file, line, column: u32::try_from(at - start).map_or(u32::MAX, |column| column.saturating_add(1)) }
    }

    /// Reads a word that does not begin with a quote; a quoted part may be within.
    #[inline]
    fn word(&mut self) -> Result<Word<'a>, EntryError> {
        let start = self.at;
        let mut at = start;
        while let Some(&octet) = self.text.get(at) {
            match KINDS[usize::from(octet)] {
                Kind::Plain => at += 1,
                Kind::Escape => at = self.behind_escape(at),
                Kind::Quote => at = self.closing_quote(at)? + 1,
                Kind::Blank | Kind::Newline | Kind::Comment | Kind::Open | Kind::Close => break,
            }
        }
        (self.at, self.behind) = (at, at);
        Ok(Word { text: self.text.get(start..at).unwrap_or_default(), at: start, quoted: false })
    }

    /// Reads a word in quotes.
    fn quoted(&mut self) -> Result<Word<'a>, EntryError> {
        let start = self.at;
        let close = self.closing_quote(start)?;
        (self.at, self.behind) = (close + 1, close + 1);
        Ok(Word { text: self.text.get(start + 1..close).unwrap_or_default(), at: start, quoted: true })
    }

    /// The quote that closes the one at `open`. If there is none, the rest of the line is lost.
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

    /// Behind the `\` at a place and the octet that it escapes, which no newline is.
    fn behind_escape(&self, at: usize) -> usize {
        match self.text.get(at + 1) {
            None | Some(b'\n' | b'\r') => at + 1,
            Some(_) => at + 2,
        }
    }

    /// The next newline, or the end of the file.
    fn end_of_line(&self, from: usize) -> usize {
        let rest = self.text.get(from..).unwrap_or_default();
        from + rest.iter().position(|octet| *octet == b'\n').unwrap_or(rest.len())
    }
}

impl<'a> Word<'a> {
    /// Whether this is the word, in any case and without quotes.
    pub(in crate::zone) fn is(self, keyword: &str) -> bool {
        !self.quoted && self.text.eq_ignore_ascii_case(keyword.as_bytes())
    }

    /// The word as text; empty, which nothing is that is looked for in text, if it is not ASCII.
    pub(in crate::zone) fn as_str(self) -> &'a str {
        std::str::from_utf8(self.text).ok().filter(|text| text.is_ascii()).unwrap_or_default()
    }

    /// A problem with this word.
    #[cold]
    pub(in crate::zone) fn error(self, problem: impl FnOnce(String) -> EntryProblem) -> EntryError {
        EntryError::new(self.at, problem(shown(self.text)))
    }

    /// The word is not the thing that stands here.
    #[cold]
    pub(in crate::zone) fn bad(self, thing: &'static str, expected: &'static str) -> EntryError {
        self.error(|found| EntryProblem::Bad { thing, found, expected })
    }
}

/// What an octet means to the tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Part of a word.
    Plain,
    /// Between words; a carriage return too, so that CRLF ends a line.
    Blank,
    /// Ends a line.
    Newline,
    /// Begins a comment.
    Comment,
    /// Opens a parenthesis.
    Open,
    /// Closes one.
    Close,
    /// Begins or ends a quoted part.
    Quote,
    /// Takes the meaning from the next octet.
    Escape,
}

/// What each octet means.
const KINDS: [Kind; 256] = {
    let mut kinds = [Kind::Plain; 256];
    kinds[b' ' as usize] = Kind::Blank;
    kinds[b'\t' as usize] = Kind::Blank;
    kinds[b'\r' as usize] = Kind::Blank;
    kinds[b'\n' as usize] = Kind::Newline;
    kinds[b';' as usize] = Kind::Comment;
    kinds[b'(' as usize] = Kind::Open;
    kinds[b')' as usize] = Kind::Close;
    kinds[b'"' as usize] = Kind::Quote;
    kinds[b'\\' as usize] = Kind::Escape;
    kinds
};

/// What some editors put in front of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
