//! The reader of entries. Directives change its state, and records go to the caller.

use dns::{Name, RecordType};

use super::generate::Pattern;
use super::include::{ZoneFileSource, ZoneFiles, confined};
use super::problem::{EntryError, EntryProblem, shown};
use super::token::{Lexer, ZoneFileWord};
use super::words::{Words, number, read_name, record_type, seconds};
use super::{ZoneFileContext, ZoneFileSummary};
use crate::load::error::{FileError, FileErrors, FileProblem, MAX_ERRORS};
use crate::rdata;
use crate::store::record::{FilePlace, Record};

pub(super) struct EntryReader<'t> {
    include: &'t mut (dyn FnMut(&str) -> Result<ZoneFileSource, String> + 't),
    sink: &'t mut (dyn FnMut(Record<'_>, FilePlace) + 't),
    files: ZoneFiles,
    origin: Option<Name>,
    owner: EntryOwner,
    ttls: Ttls,
    rdata: Vec<u8>,
    records: usize,
    errors: Vec<FileError>,
    more: Option<(FilePlace, usize)>,
}

struct EntryOwner {
    len: usize,
    wire: [u8; Name::MAX_LEN],
}

impl EntryOwner {
    fn as_wire(&self) -> &[u8] {
        &self.wire[..self.len]
    }
}

#[derive(Debug)]
struct Ttls {
    /// The value of `$TTL` (RFC 2308 section 4).
    directive: Option<u32>,
    /// The last explicit TTL of a record (RFC 1035 section 5.1).
    stated: Option<u32>,
    /// The last field of the SOA record, the default TTL before RFC 2308.
    minimum: Option<u32>,
    default: Option<u32>,
}

impl Ttls {
    fn implied(&self) -> Option<u32> {
        self.directive.or(self.stated).or(self.minimum).or(self.default)
    }
}

impl<'t> EntryReader<'t> {
    pub(super) fn new(
        source: &ZoneFileSource,
        task: ZoneFileContext<'t>,
        sink: &'t mut (dyn FnMut(Record<'_>, FilePlace) + 't),
    ) -> Self {
        Self {
            include: task.include,
            sink,
            files: ZoneFiles::new(&source.name),
            origin: task.origin.cloned(),
            owner: EntryOwner { len: 0, wire: [0; Name::MAX_LEN] },
            ttls: Ttls { directive: None, stated: None, minimum: None, default: task.default_ttl },
            rdata: Vec::with_capacity(512),
            records: 0,
            errors: Vec::new(),
            more: None,
        }
    }

    pub(super) fn read_zone(&mut self, source: &ZoneFileSource) {
        self.read_file(&source.octets, 0);
    }

    pub(super) fn finish(mut self) -> (ZoneFileSummary, Result<(), FileErrors>) {
        if let Some((place, count)) = self.more {
            self.errors.push(self.files.error(place, FileProblem::More(count)));
        }
        (ZoneFileSummary { files: self.files, records: self.records }, FileErrors::check(self.errors))
    }

    fn read_file(&mut self, octets: &[u8], file: u16) {
        let mut lexer = Lexer::new(octets);
        while let Some(entry) = lexer.next_entry() {
            let read = entry.and_then(|(first, indented)| {
                if !first.quoted && first.text.starts_with(b"$") {
                    self.directive(first, &mut lexer, file)
                } else {
                    let place = lexer.place(first.at, file);
                    self.record(first, indented, &mut lexer, place)
                }
            });
            if let Err(error) = read {
                let place = lexer.place(error.at, file);
                self.report(place, *error.problem);
            }
        }
    }

    #[cold]
    fn report(&mut self, place: FilePlace, problem: EntryProblem) {
        if self.errors.len() < MAX_ERRORS {
            let trail = self.files.trail(place.file);
            self.errors.push(self.files.error(place, FileProblem::Entry(problem, trail)));
            return;
        }
        self.more.get_or_insert((place, 0)).1 += 1;
    }

    fn directive(&mut self, word: ZoneFileWord<'_>, lexer: &mut Lexer<'_>, file: u16) -> Result<(), EntryError> {
        let mut words = Words { lexer, origin: self.origin.as_ref() };
        if word.is("$ORIGIN") {
            let mut wire = Vec::new();
            words.name(&mut wire)?;
            words.end()?;
            self.origin = Name::from_wire(&wire).ok();
        } else if word.is("$TTL") {
            let ttl = read_ttl(words.next("TTL", TTL_FORM)?)?;
            words.end()?;
            self.ttls.directive = Some(ttl);
        } else if word.is("$INCLUDE") {
            let name = words.next("file name", "one in the folder of the zone file, or below it")?;
            let origin = match words.any()? {
                None => self.origin.clone(),
                Some(word) => {
                    let mut wire = [0; Name::MAX_LEN];
                    let len = read_name(word, self.origin.as_ref(), &mut wire)?;
                    Name::from_wire(&wire[..len]).ok()
                }
            };
            words.end()?;
            self.include(name, origin, lexer.place(word.at, file))?;
        } else if word.is("$GENERATE") {
            self.generate(lexer, file, word.at)?;
        } else {
            return Err(word.error(EntryProblem::UnknownDirective));
        }
        Ok(())
    }

    fn include(&mut self, word: ZoneFileWord<'_>, origin: Option<Name>, place: FilePlace) -> Result<(), EntryError> {
        let error = |problem| EntryError::new(word.at, problem);
        let mut name = Vec::new();
        super::unescape(word, &mut name)?;
        let text = std::str::from_utf8(&name).ok();
        let path = text.and_then(confined).ok_or_else(|| error(EntryProblem::IncludeOutside(shown(&name))))?;
        let source = (self.include)(&path).map_err(|reason| error(EntryProblem::Include(path, reason)))?;
        self.files.check_chain(&source.name, place.file).map_err(error)?;
        let number = self.files.add(&source.name, place).map_err(error)?;
        // RFC 1035 section 5.1: `$INCLUDE` keeps the parent's origin. The owner is restored too.
        let origin = std::mem::replace(&mut self.origin, origin);
        let owner = EntryOwner { len: self.owner.len, wire: self.owner.wire };
        self.read_file(&source.octets, number);
        self.origin = origin;
        self.owner = owner;
        Ok(())
    }

    fn generate(&mut self, lexer: &mut Lexer<'_>, file: u16, at: usize) -> Result<(), EntryError> {
        let pattern = Pattern::read(lexer)?;
        let place = lexer.place(at, file);
        let mut line = Vec::new();
        for value in pattern.values() {
            pattern.write(value, &mut line)?;
            let mut lexer = Lexer::new(&line);
            let read = match lexer.next_entry() {
                Some(entry) => entry.and_then(|(first, _)| self.record(first, false, &mut lexer, place)),
                None => Ok(()),
            };
            read.map_err(|error| EntryError::new(at, EntryProblem::Generated(shown(&line), error.problem)))?;
        }
        Ok(())
    }

    fn record(
        &mut self,
        first: ZoneFileWord<'_>,
        indented: bool,
        lexer: &mut Lexer<'_>,
        place: FilePlace,
    ) -> Result<(), EntryError> {
        let mut words = Words { lexer, origin: self.origin.as_ref() };
        let mut word = first;
        if !indented {
            // A separate buffer, so that a bad owner cannot spoil the next one.
            let mut wire = [0; Name::MAX_LEN];
            let len = read_name(first, words.origin, &mut wire)?;
            self.owner = EntryOwner { len, wire };
            word = words.next("type", TYPE_FORM)?;
        } else if self.owner.len == 0 {
            return Err(EntryError::new(first.at, EntryProblem::NoOwner));
        }
        let (mut ttl, mut class) = (None, false);
        // RFC 1035 section 5.1: TTL and class in any order, each at most once. No type begins with a digit.
        loop {
            if ttl.is_none() && word.text.first().is_some_and(u8::is_ascii_digit) {
                ttl = Some(read_ttl(word)?);
            } else if !class && is_class(word)? {
                class = true;
            } else {
                break;
            }
            word = words.next("type", TYPE_FORM)?;
        }
        let rtype = record_type(word)?;
        self.rdata.clear();
        rdata::read(rtype, word.at, &mut words, &mut self.rdata)?;
        if rtype == RecordType::SOA {
            let minimum = self.rdata.last_chunk().map(|octets| u32::from_be_bytes(*octets));
            self.ttls.minimum = minimum.filter(|minimum| *minimum <= MAX_TTL);
        }
        let ttl = match ttl {
            Some(_) => {
                self.ttls.stated = ttl;
                ttl
            }
            None => self.ttls.implied(),
        };
        let ttl = ttl.ok_or_else(|| EntryError::new(word.at, EntryProblem::NoTtl))?;
        self.records += 1;
        (self.sink)(Record { owner: self.owner.as_wire(), rtype, ttl, rdata: &self.rdata }, place);
        Ok(())
    }
}

fn read_ttl(word: ZoneFileWord<'_>) -> Result<u32, EntryError> {
    let seconds = seconds(word.text).and_then(|seconds| u32::try_from(seconds).ok());
    // RFC 2181 section 8: 31 bits.
    seconds.filter(|seconds| *seconds <= MAX_TTL).ok_or_else(|| word.bad("TTL", TTL_FORM))
}

/// Returns true for the class IN and false for a word that is not a class. Other classes are errors.
fn is_class(word: ZoneFileWord<'_>) -> Result<bool, EntryError> {
    if word.is("IN") {
        return Ok(true);
    }
    let numbered = match word.text.split_at_checked(5) {
        Some((prefix, digits)) if prefix.eq_ignore_ascii_case(b"CLASS") => number(digits),
        _ => None,
    };
    match numbered {
        Some(1) => Ok(true),
        None if !["CH", "HS", "CS", "CHAOS", "HESIOD", "NONE"].iter().any(|class| word.is(class)) => Ok(false),
        None | Some(_) => Err(word.error(EntryProblem::OtherClass)),
    }
}

/// The largest TTL (RFC 2181 section 8).
const MAX_TTL: u32 = i32::MAX as u32;
const TTL_FORM: &str = "0 to 2147483647 seconds, or units such as 1h30m";
const TYPE_FORM: &str = "OWNER TTL CLASS TYPE DATA";
