//! Files of an authority: tables, and master files with the files that they include.

use dns::{Name, RecordType};
use zone::master::{self, ZoneFileContext, ZoneFileSource};
use zone::{
    DeferredZoneBuilder, Diagnostics, FilePlace, Miss, Record, RecordBatch, TablesBuilder, Zone, ZoneBuilder, ZoneDb,
    is_master_file, rdata_to_text, read_table,
};

/// A table of hosts, or a hosts file: read line by line and as a whole, it has the same hosts or faults.
pub fn table(octets: &[u8]) {
    let mut builder = TablesBuilder::new(Miss::Nxdomain);
    if octets.len() > LARGE {
        builder.expect_many();
    }
    let errors = read_table(octets, 300, &mut |record, place| {
        assert!(place.line > 0 && Name::from_wire(record.owner).is_ok());
        builder.add(&record, place);
    });
    let listed = read_table(octets, 300, &mut |_, _| ()).lines("hosts.txt", 3);
    assert!(listed.len() <= 4 && listed.iter().all(|line| line.starts_with("hosts.txt:")), "{listed:?}");
    builder.end_file("hosts.txt", errors);
    let sources = [("hosts.txt".to_owned(), octets.to_vec())];
    match (builder.finish(), ZoneDb::build(&sources, 300, Miss::Nxdomain)) {
        (Ok(tables), Ok(zone_db)) => {
            assert!(listed.is_empty() && ZoneDb::new(tables.into()).hosts() == zone_db.hosts());
        }
        (Err(errors), Err(again)) => assert!(errors == again && errors.to_string().starts_with("hosts.txt:")),
        (_, _) => panic!("only one of two ways reads {:?}", octets.escape_ascii().to_string()),
    }
    let _ = is_master_file(octets);
}

/// A master file, and behind zero octets the files that it includes by their number: read, checked as a
/// zone, and its records written as text and read again.
pub fn master_file(octets: &[u8]) {
    let parts: Vec<&[u8]> = octets.split(|octet| *octet == 0).collect();
    let file = |number: usize| Some(ZoneFileSource { name: number.to_string(), octets: parts.get(number)?.to_vec() });
    let mut left = MAX_INCLUDES;
    let mut include = |name: &str| {
        left = left.checked_sub(1).ok_or("that is enough")?;
        name.parse().ok().and_then(file).ok_or_else(|| format!("there is no {name:?}"))
    };
    let origin = Name::root();
    let task = ZoneFileContext { origin: Some(&origin), default_ttl: Some(300), include: &mut include };
    let (mut deferred, mut of_root) = (DeferredZoneBuilder::new(None), ZoneBuilder::new(&origin));
    if octets.len() > LARGE {
        deferred.expect_many();
    }
    let (mut apex, mut records, mut lines) = (None, RecordBatch::default(), Vec::new());
    let main = file(0).expect("there is always one part");
    let (summary, read) = master::read_through(&main, task, &mut |record, place| {
        deferred.add(&record, place);
        of_root.add(&record, place);
        records.push(&record, place);
        let owner = Name::from_wire(record.owner).expect("the owner is a name");
        if lines.len() < 100 {
            let text = rdata_to_text(record.rtype, record.rdata);
            lines.push((format!("{owner} {} {} {text}\n", record.ttl, record.rtype), record.rdata.to_vec()));
        }
        if record.rtype == RecordType::SOA {
            apex.get_or_insert(owner);
        }
    });
    if let Err(errors) = read {
        let is_placed = |line: &str| line.starts_with(|first: char| first.is_ascii_digit());
        return assert!(errors.to_string().lines().all(is_placed), "{errors}");
    }
    let files = &summary.files;
    drop(checked(of_root.finish(), files));
    let found = checked(deferred.finish(), files);
    let Some(apex) = apex else {
        return assert!(found.0.is_none() && found.1.len() == 1, "a zone has an SOA record");
    };
    let again = checked(built(&apex, records.iter()), files);
    assert_eq!(found.1, again.1);
    if let (Some(zone), Some(again)) = (found.0, again.0) {
        assert_eq!((zone.apex(), zone.records()), (again.apex(), again.records()));
        let copied = built(zone.apex(), zone.iter().map(|record| (record, FilePlace::default())));
        let copy = checked(copied, files).0.expect("the records of a zone are a zone");
        assert!(copy.serial() == zone.serial() && copy.canonical().eq(zone.canonical()));
        assert!(zone.records() == zone.canonical().count() && zone.records() <= summary.records);
    }
    lines.iter().for_each(|(line, rdata)| read_again(line, rdata));
}

/// The octets of a file that is worth a reservation of memory, which takes longer than to read a small one.
const LARGE: usize = 512;

/// Files that one master file includes, so that a run is short.
const MAX_INCLUDES: usize = 64;

fn built<'a>(
    apex: &Name,
    records: impl Iterator<Item = (Record<'a>, FilePlace)>,
) -> Result<(Zone, Diagnostics), Diagnostics> {
    let mut builder = ZoneBuilder::new(apex);
    records.for_each(|(record, place)| builder.add(&record, place));
    builder.finish()
}

/// Returns the zone if it is sound, and each of its errors and warnings as a line.
fn checked(
    finished: Result<(Zone, Diagnostics), Diagnostics>,
    files: &master::ZoneFiles,
) -> (Option<Zone>, Vec<String>) {
    let (zone, diagnostics) = match finished {
        Ok((zone, diagnostics)) => (Some(zone), diagnostics),
        Err(diagnostics) => (None, diagnostics),
    };
    let Diagnostics { errors, mut warnings } = diagnostics;
    assert_eq!(zone.is_some(), errors.is_empty());
    let absences = errors.iter().filter(|error| error.what.is_of_absence()).count();
    assert!(absences <= 2, "SOA and NS are all that a zone must have");
    let lines = errors.iter().map(|error| error.in_files(files));
    let lines: Vec<_> = lines.chain(warnings.iter().map(|warning| warning.in_files(files))).collect();
    let numbers: Vec<_> = files.names().collect();
    let place = |line: &String| line.split_once(':').is_some_and(|(number, _)| numbers.contains(&number));
    assert!(lines.iter().all(place) && lines.len() <= errors.count() + warnings.count(), "{lines:?}");
    let count = warnings.count();
    let listed = warnings.iter().count();
    warnings.retain(|_| false);
    assert_eq!(warnings.count(), count - listed);
    (zone, lines)
}

/// A line that was written of a record is read as that record.
fn read_again(line: &str, rdata: &[u8]) {
    let source = ZoneFileSource { name: "line".to_owned(), octets: line.as_bytes().to_vec() };
    let mut include = |name: &str| Err(format!("there is no {name}"));
    let origin = Name::root();
    let task = ZoneFileContext { origin: Some(&origin), default_ttl: Some(300), include: &mut include };
    let mut again = Vec::new();
    let read = master::read(&source, task, &mut |record, _| again = record.rdata.to_vec());
    assert!(read.is_ok(), "{line}");
    assert_eq!(again, rdata, "{line}");
}
