//! Tests of loading: places of errors, and the files that a reload reads again.

use std::fs;

use super::*;

/// A valid config, whose zone files may not exist.
const CONFIG: &str = "[authorities.a]\nlisten = [\"127.0.0.1:0\"]\nzones = [\"a.txt\", \"b.txt\"]\n";

/// Makes a folder with these files.
fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder for the test");
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).expect("a file of the test");
    }
    folder
}

#[test]
fn the_first_place_that_has_a_file_is_taken() {
    let folder = folder(&[("second.toml", CONFIG.as_bytes()), ("third.toml", b"broken")]);
    let places = ["first.toml", "second.toml", "third.toml"].map(|name| folder.path().join(name));
    let places = places.each_ref().map(PathBuf::as_path);
    let text = ConfigText::read_first(&places).expect("the second");
    assert_eq!(text.file, places[1]);
    let config = text.parse(&|_| None).expect("it is right");
    assert_eq!(config.authorities[0].zones.files[0].file, folder.path().join("a.txt"));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = load(Some(Path::new("no/such.toml"))).expect_err("no file").to_string();
    assert_eq!(error, "no/such.toml: there is no such config file");
    let error = ConfigText::read_first(&["no/a.toml", "no/b.toml"].map(Path::new)).expect_err("no file").to_string();
    assert_eq!(error, "no config file, looked for no/a.toml, no/b.toml; name one with -c FILE");
}

#[test]
fn a_folder_is_no_file() {
    let folder = folder(&[]);
    let error = load(Some(folder.path())).expect_err("a folder");
    assert!(matches!(error, LoadError::Unreadable(..)), "{error}");
}

#[test]
fn other_encodings_are_told() {
    let folder = folder(&[("c.toml", b"workers = 0\n# Gr\xfcn\n")]);
    let error = load(Some(&folder.path().join("c.toml"))).expect_err("Latin-1").to_string();
    assert!(error.ends_with("c.toml:2: not UTF-8 text, as TOML has to be"), "{error}");
}

#[test]
fn every_missing_zone_file_is_told() {
    let folder = folder(&[("c.toml", CONFIG.as_bytes())]);
    let (config, _) = load(Some(&folder.path().join("c.toml"))).expect("a config");
    let error = load_files(config, &mut Loader::default()).expect_err("no zones").to_string();
    let names: Vec<_> = error.lines().map(|line| line.contains("a.txt: cannot be read")).collect();
    assert_eq!(names, [true, false], "{error}");
}

#[test]
fn all_that_is_wrong_in_zone_files_is_told_at_once() {
    let folder = folder(&[("c.toml", CONFIG.as_bytes()), ("a.txt", b"nonsense\n"), ("b.txt", b"a 1.2.3 A\n")]);
    let (config, _) = load(Some(&folder.path().join("c.toml"))).expect("a config");
    let error = load_files(config, &mut Loader::default()).expect_err("bad lines").to_string();
    assert!(error.contains("a.txt:1:") && error.contains("b.txt:1:3:"), "{error}");
}

#[test]
fn sound_zone_files_become_a_zone_db_for_each_authority() {
    let folder = folder(&[("c.toml", CONFIG.as_bytes()), ("a.txt", b"a 192.0.2.1 A\n"), ("b.txt", b"b ::1 AAAA\n")]);
    let (config, _) = load(Some(&folder.path().join("c.toml"))).expect("a config");
    let setup = load_files(config, &mut Loader::default()).expect("zones");
    assert_eq!(setup.zone_dbs.len(), 1);
    assert_eq!(setup.zone_dbs[0].hosts(), 2);
}

/// Makes a config with these zones.
fn config(folder: &Path, zones: &str) -> Config {
    let text = format!("[authorities.a]\nlisten = [\"127.0.0.1:0\"]\nzones = [{zones}]\n");
    Config::parse(&text, "c.toml", folder).unwrap_or_else(|problems| panic!("{problems}"))
}

/// The first records of a zone.
const APEX: &str = "@ 300 SOA ns hostmaster 1 2 3 4 5\n@ 300 NS ns\nns 300 A 192.0.2.1\n";

#[test]
fn files_are_tables_or_zones() {
    let with_origin = format!("$ORIGIN one.\n{APEX}");
    let early = "ns.two. 300 A 192.0.2.1\ntwo. 300 SOA ns hostmaster.two. 1 2 3 4 5\ntwo. 300 NS ns.two.";
    let folder = folder(&[
        ("one", with_origin.as_bytes()),
        ("two", early.replace("SOA ns ", "SOA ns.two. ").as_bytes()),
        ("template", APEX.as_bytes()),
        ("table", b"h.three 192.0.2.1 A"),
    ]);
    let config = config(
        folder.path(),
        "'one', 'two', 'table', { file = 'template', origin = 'four' }, { file = 'template', origin = 'five' }",
    );
    let setup = load_files(config, &mut Loader::default()).unwrap_or_else(|error| panic!("{error}"));
    let zones: Vec<_> = setup.zone_dbs[0].zones().iter().map(|zone| zone.apex().to_string()).collect();
    assert_eq!(zones, ["one.", "two.", "four.", "five."]);
    assert_eq!((setup.zone_dbs[0].tables().hosts(), setup.zone_dbs[0].hosts()), (1, 9));
}

#[test]
fn all_that_is_wrong_with_zones_is_told_at_once() {
    let folder = folder(&[
        ("syntax", b"$TTL 1h\n@ SOA ns mail 1 2 3 4 5\n@ NS ns\n@ AX 1\n@ A 1.2.3\n$INCLUDE part\n$INCLUDE ../x\nb. A 192.0.2.1"),
        ("part", b"x AAAA 1.2.3.4"),
        ("errors", b"$TTL 1h\n@ SOA ns mail 1 2 3 4 5\n@ NS ns\nother. A 192.0.2.1\na CNAME b\na A 192.0.2.1"),
        // An unreadable record could be the missing one, so missing records are not reported.
        ("soa", b"@ 1 SOA ns mail x 2 3 4 5\n"),
        ("nothing", b"; $TTL\n"),
        ("same", APEX.as_bytes()),
    ]);
    let zones = "{ file = 'syntax', origin = 'a' }, { file = 'errors', origin = 'b' }, { file = 'nothing', origin = 'c' }, \
                 { file = 'same', origin = 'd' }, { file = 'errors', origin = 'd' }, 'missing', \
                 { file = 'soa', origin = 'e' }";
    let error = load_files(config(folder.path(), zones), &mut Loader::default()).expect_err("wrong all over");
    let text = error.to_string().replace(&format!("{}/", folder.path().display()), "");
    let places: Vec<_> = text.lines().map(|line| line.split(": ").next().expect("a place")).collect();
    let errors = ["errors:4:1", "errors:6:1"];
    let expected =
        [&["syntax:4:3", "syntax:5:5", "part:1:8", "syntax:7:10", "syntax:8:1"][..], &errors, &["nothing"; 2], &errors];
    assert_eq!(places, [&expected.concat()[..], &["missing", "soa:1:17"]].concat(), "{text}");
}

#[test]
fn one_zone_in_two_files_of_an_authority_is_wrong() {
    let folder = folder(&[("one", APEX.as_bytes()), ("two", APEX.as_bytes())]);
    let zones = "{ file = 'one', origin = 'a' }, { file = 'two', origin = 'A.' }";
    let error = load_files(config(folder.path(), zones), &mut Loader::default()).expect_err("the same twice");
    let text = error.to_string().replace(&format!("{}/", folder.path().display()), "");
    assert_eq!(text, "two: zone a. is in one too: expected one of them");
}

#[test]
fn what_is_odd_is_told_once() {
    let text = format!("{APEX}mail 300 MX 10 mx\nsub 300 NS ns.sub\nns 300 A 192.0.2.1\n");
    let folder = folder(&[("z", text.as_bytes())]);
    let config = config(folder.path(), "{ file = 'z', origin = 'a' }");
    let mut loader = Loader::default();
    load_files(config.clone(), &mut loader).expect("a zone");
    let warnings = loader.warnings.join("\n").replace(&format!("{}/", folder.path().display()), "");
    assert_eq!(
        warnings,
        "z:6:1: ns.a.: this A record is there already, it counts once\n\
         z:5:1: sub.a.: name server ns.sub.a. has no address in this zone"
    );
    load_files(config, &mut loader).expect("the same zone");
    assert_eq!(loader.warnings, [""; 0], "nothing was read anew");
}

#[test]
fn a_reload_reads_what_has_changed_and_keeps_the_rest() {
    let including = format!("{APEX}$INCLUDE part\n");
    let folder = folder(&[
        ("one", APEX.as_bytes()),
        ("two", including.as_bytes()),
        ("part", b"x 1 A 192.0.2.1"),
        ("t", b"h ::1 AAAA"),
    ]);
    let config = config(folder.path(), "{ file = 'one', origin = 'a' }, { file = 'two', origin = 'b' }, 't'");
    let mut loader = Loader::default();
    let mut load = || {
        let mut setup = load_files(config.clone(), &mut loader)?;
        Ok::<_, LoadError>(setup.zone_dbs.remove(0))
    };
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("a file of the test");
    let mut before = load().expect("all is right");
    let mut check = |expected: [bool; 3], why: &str| {
        let now = load().unwrap_or_else(|error| panic!("{why}: {error}"));
        let is_same = |index: usize| Arc::ptr_eq(&before.zones()[index], &now.zones()[index]);
        assert_eq!([is_same(0), is_same(1), Arc::ptr_eq(before.tables(), now.tables())], expected, "{why}");
        before = now;
    };
    check([true, true, true], "nothing has changed");
    write("one", APEX);
    check([true, true, true], "a file was touched, and says the same");
    write("one", &APEX.replace("192.0.2.1", "192.0.2.2"));
    check([false, true, true], "a zone has changed, and its size has not");
    write("part", "x 1 A 192.0.2.2");
    check([true, false, true], "an included file has changed");
    write("t", "h ::2 AAAA");
    check([true, true, false], "a table has changed");
    write("two", APEX);
    check([true, false, true], "nothing is included any more");
    fs::remove_file(folder.path().join("part")).expect("it is there");
    check([true, true, true], "a file that is not included any more is gone");
}

#[test]
fn a_reload_that_fails_keeps_what_is_known() {
    let folder = folder(&[("one", APEX.as_bytes()), ("t", b"h ::1 AAAA")]);
    let config = config(folder.path(), "{ file = 'one', origin = 'a' }, 't'");
    let mut loader = Loader::default();
    let before = load_files(config.clone(), &mut loader).expect("all is right");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("a file of the test");
    write("t", "h ::1 A");
    load_files(config.clone(), &mut loader).expect_err("a wrong table");
    write("t", "h ::1 AAAA");
    let after = load_files(config, &mut loader).expect("all is right again");
    assert!(Arc::ptr_eq(&before.zone_dbs[0].zones()[0], &after.zone_dbs[0].zones()[0]));
    assert!(Arc::ptr_eq(before.zone_dbs[0].tables(), after.zone_dbs[0].tables()));
}

#[test]
fn a_user_that_other_programs_share_is_warned_of() {
    for (uid, count) in [(65_534, 1), (999, 0)] {
        let user = |name: &str| Some(User { name: name.to_owned(), uid, gid: uid, groups: Vec::new() });
        let text = "user = \"dns\"\n[authorities.a]\nlisten = [\"127.0.0.1:53\"]\nzones = [\"a.zone\"]\n";
        let config = Config::parse_among(text, "c.toml", Path::new(""), &user).expect("a config");
        assert_eq!(checks::shared_user(&config).len(), count, "{uid}");
    }
}

#[test]
fn a_missing_folder_is_refused_and_not_made() {
    let folder = folder(&[]);
    let text = "user = \"dns\"\n[forwarder]\n[pools.p]\nbackends = [\"192.0.2.1\"]\n[cache]\npersist = \"c/cache.bin\"\n\
                [query_log]\nto = \"ql/q.jsonl\"\n[dnstap]\nto = \"file:dt/tap\"\n";
    let user = |name: &str| Some(User { name: name.to_owned(), uid: 999, gid: 999, groups: Vec::new() });
    let config =
        Config::parse_among(text, "c.toml", folder.path(), &user).unwrap_or_else(|problems| panic!("{problems}"));
    let reported = load_files(config.clone(), &mut Loader::default()).expect_err("no folders").to_string();
    for (line, (key, name)) in
        reported.lines().zip([("query_log.to", "ql"), ("dnstap.to", "dt"), ("cache.persist", "c")])
    {
        let missing = folder.path().join(name);
        let missing = missing.display();
        let remedy = format!("the folder {missing} does not exist; make it with install -d -o dns {missing}");
        assert!(line.starts_with(&format!("{key}: ")) && line.ends_with(&remedy), "{line}");
        assert!(!folder.path().join(name).exists());
    }
    assert_eq!(reported.lines().count(), 3, "{reported}");
    for name in ["ql", "dt", "c"] {
        fs::create_dir(folder.path().join(name)).expect("ours");
    }
    load_files(config, &mut Loader::default()).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_missing_file_has_the_place_of_the_config_that_names_it() {
    let text = "[authorities.a]\nlisten = [\"127.0.0.1:0\"]\nzones = [\"a.txt\", { file = \"b.zone\", origin = \"b\" }, \"bad.txt\"]\n";
    let folder = folder(&[("c.toml", text.as_bytes()), ("bad.txt", b"a.example X\n")]);
    let text = ConfigText::read(Some(&folder.path().join("c.toml"))).expect("our own file");
    let config = text.parse(&|_| None).expect("it is right");
    let error = load_files(config, &mut Loader::default()).expect_err("no zones");
    let reported = text.with_places(error).to_string();
    let at = |name: &str| folder.path().join(name).display().to_string();
    for (place, key, file) in [("3:10", "zones[0]", "a.txt"), ("3:28", "zones[1].file", "b.zone")] {
        let expected = format!("{}:{place}: authorities.a.{key}: {}: cannot be read: ", at("c.toml"), at(file));
        assert!(reported.lines().any(|line| line.starts_with(&expected)), "{expected}\n{reported}");
    }
    assert!(reported.lines().any(|line| line.starts_with(&format!("{}:1", at("bad.txt")))), "{reported}");
}
