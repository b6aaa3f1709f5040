//! Entries one by one: directives change what is known, records go to the caller.

use super::generate::Pattern;
use super::include::{Files, Source, confined};
use super::problem::{EntryError, EntryProblem, shown};
use super::token::{Lexer, Word};
use super::words::{Words, number, read_name, record_type, seconds};
use super::{Summary, Task};
use crate::wire::{Name, RecordType};
use crate::zone::load::error::{FileError, FileErrors, FileProblem, MAX_ERRORS};
use crate::zone::rdata;
use crate::zone::store::record::{Place, Record};

/// Reads the files of one zone.
pub(super) struct Reader<'t> {
    /// Gives included files.
    include: &'t mut (dyn FnMut(&str) -> Result<Source, String> + 't),
    /// Takes records.
    sink: &'t mut (dyn FnMut(Record<'_>, Place) + 't),
    /// All files so far.
    files: Files,
    /// What relative names are relative to.
    origin: Option<Name>,
    /// The last owner.
    owner: Owner,
    /// What is known of TTLs.
    ttls: Ttls,
    /// The data of the record that is being read.
    rdata: Vec<u8>,
    /// How many records went to the sink.
    records: usize,
    /// What is wrong, up to the limit.
    errors: Vec<FileError>,
    /// What is wrong beyond it: the first place and the number.
    more: Option<(Place, usize)>,
}

/// An owner name in wire form, empty before the first.
struct Owner {
    /// Octets in use.
    len: usize,
    /// The octets.
    wire: [u8; Name::MAX_LEN],
}

impl Owner {
    /// What is in use.
    fn as_wire(&self) -> &[u8] {
        &self.wire[..self.len]
    }
}

/// Where the TTL of a record that states none comes from, first things first.
#[derive(Debug)]
struct Ttls {
    /// `$TTL` (RFC 2308 section 4).
    directive: Option<u32>,
    /// The last that a record stated (RFC 1035 section 5.1).
    stated: Option<u32>,
    /// The last field of the SOA record, which was the default TTL before RFC 2308.
    minimum: Option<u32>,
    /// The caller's.
    default: Option<u32>,
}

impl Ttls {
    /// The TTL of a record that states none.
    fn implied(&self) -> Option<u32> {
        self.directive.or(self.stated).or(self.minimum).or(self.default)
    }
}

impl<'t> Reader<'t> {
    /// Nothing is known but what the caller says.
    pub(super) fn new(source: &Source, task: Task<'t>, sink: &'t mut (dyn FnMut(Record<'_>, Place) + 't)) -> Self {
        Self {
            include: task.include,
            sink,
            files: Files::new(&source.name),
            origin: task.origin.cloned(),
            owner: Owner { len: 0, wire: [0; Name::MAX_LEN] },
            ttls: Ttls { directive: None, stated: None, minimum: None, default: task.default_ttl },
            rdata: Vec::with_capacity(512),
            records: 0,
            errors: Vec::new(),
            more: None,
        }
    }

    /// Reads the zone's own file and all that it includes.
    pub(super) fn read_zone(&mut self, source: &Source) {
        self.read_file(&source.octets, 0);
    }

    /// What came of it.
    pub(super) fn finish(mut self) -> (Summary, Result<(), FileErrors>) {
        if let Some((place, count)) = self.more {
            self.errors.push(self.files.error(place, FileProblem::More(count)));
        }
        (Summary { files: self.files, records: self.records }, FileErrors::check(self.errors))
    }

    /// Reads a file, all entries of it.
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

    /// Notes an error.
    #[cold]
    fn report(&mut self, place: Place, problem: EntryProblem) {
        if self.errors.len() < MAX_ERRORS {
            let trail = self.files.trail(place.file);
            self.errors.push(self.files.error(place, FileProblem::Entry(problem, trail)));
            return;
        }
        self.more.get_or_insert((place, 0)).1 += 1;
    }

    /// Obeys a directive.
    fn directive(&mut self, word: Word<'_>, lexer: &mut Lexer<'_>, file: u16) -> Result<(), EntryError> {
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

    /// Reads a file in the place of its `$INCLUDE`.
    fn include(&mut self, word: Word<'_>, origin: Option<Name>, place: Place) -> Result<(), EntryError> {
        let error = |problem| EntryError::new(word.at, problem);
        let mut name = Vec::new();
        super::unescape(word, &mut name)?;
        let text = std::str::from_utf8(&name).ok();
        let path = text.and_then(confined).ok_or_else(|| error(EntryProblem::IncludeOutside(shown(&name))))?;
        let source = (self.include)(&path).map_err(|reason| error(EntryProblem::Include(path, reason)))?;
        self.files.check_chain(&source.name, place.file).map_err(error)?;
        let number = self.files.add(&source.name, place).map_err(error)?;
        // RFC 1035 section 5.1: a file leaves the origin of the one that includes it as it was. So do others with the
        // owner, which would otherwise be one that the reader of this file does not see.
        let origin = std::mem::replace(&mut self.origin, origin);
        let owner = Owner { len: self.owner.len, wire: self.owner.wire };
        self.read_file(&source.octets, number);
        self.origin = origin;
        self.owner = owner;
        Ok(())
    }

    /// Makes records from a pattern.
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
            // The others are wrong in the same way.
            read.map_err(|error| EntryError::new(at, EntryProblem::Generated(shown(&line), error.problem)))?;
        }
        Ok(())
    }

    /// Reads a record from its first word on and hands it over.
    fn record(
        &mut self,
        first: Word<'_>,
        indented: bool,
        lexer: &mut Lexer<'_>,
        place: Place,
    ) -> Result<(), EntryError> {
        let mut words = Words { lexer, origin: self.origin.as_ref() };
        let mut word = first;
        if !indented {
            // Into a buffer of its own: a bad owner is not to be half the next one.
            let mut wire = [0; Name::MAX_LEN];
            let len = read_name(first, words.origin, &mut wire)?;
            self.owner = Owner { len, wire };
            word = words.next("type", TYPE_FORM)?;
        } else if self.owner.len == 0 {
            return Err(EntryError::new(first.at, EntryProblem::NoOwner));
        }
        let (mut ttl, mut class) = (None, false);
        // RFC 1035 section 5.1: TTL and class in either order, each at most once. No type begins with a digit.
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

fn read_ttl(word: Word<'_>) -> Result<u32, EntryError> {
    let seconds = seconds(word.text).and_then(|seconds| u32::try_from(seconds).ok());
    // RFC 2181 section 8: 31 bits.
    seconds.filter(|seconds| *seconds <= MAX_TTL).ok_or_else(|| word.bad("TTL", TTL_FORM))
}

/// Whether a word is the class IN. Another class is an error, and what is none is the type.
fn is_class(word: Word<'_>) -> Result<bool, EntryError> {
    if word.is("IN") {
        return Ok(true);
    }
    let numbered = match word.text.split_at_checked(5) {
        Some((prefix, digits)) if prefix.eq_ignore_ascii_case(b"CLASS") => number(digits),
        _ => None,
    };
    match numbered {
        // RFC 3597 section 5.
        Some(1) => Ok(true),
        None if !["CH", "HS", "CS", "CHAOS", "HESIOD", "NONE"].iter().any(|class| word.is(class)) => Ok(false),
        None | Some(_) => Err(word.error(EntryProblem::OtherClass)),
    }
}

/// The largest TTL (RFC 2181 section 8).
const MAX_TTL: u32 = i32::MAX as u32;
/// What a TTL looks like.
const TTL_FORM: &str = "0 to 2147483647 seconds, or units such as 1h30m";
/// What a type looks like.
const TYPE_FORM: &str = "OWNER TTL CLASS TYPE DATA";
