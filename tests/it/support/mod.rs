//! Parts of tests that know types of hedgerow, each for the tests of one area. Parts that know none are in
//! `testkit`.

pub(crate) mod admin_site;
pub(crate) mod cache;
pub(crate) mod running;
pub(crate) mod scenario_record;
pub(crate) mod transfers;
pub(crate) mod zones;
