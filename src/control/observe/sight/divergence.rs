//! Divergences between the members of a pool, as JSON.

use serde::{Deserialize, Serialize};

/// All known divergences.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Divergences {
    /// The divergences in the order of their first sight.
    pub divergences: Vec<Divergence>,
    /// The pools that are not compared.
    pub not_compared: Vec<String>,
}

/// A question that members answer differently.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// The pool.
    pub pool: String,
    /// The queried name.
    pub name: String,
    /// The type.
    #[serde(rename = "type")]
    pub qtype: String,
    /// The class, unless it is IN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The flags RD, CD and DO that are set.
    pub flags: Vec<String>,
    /// The kind of difference: rcode, data or serial.
    pub kind: String,
    /// The Unix time of the first sight.
    pub since: f64,
    /// The Unix time of the last sight.
    pub seen: f64,
    /// The answers by member.
    pub said: Vec<DivergentAnswer>,
}

/// The answer of a member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DivergentAnswer {
    /// The member.
    pub backend: String,
    /// The rcode.
    pub rcode: String,
    /// The first few of the answer records.
    pub data: String,
    /// The member's serial of the zone, if known.
    pub serial: Option<u32>,
}

impl Divergence {
    /// Groups the members by equal answers, the smallest group first because it is most likely wrong.
    pub fn groups(&self) -> Vec<(&DivergentAnswer, Vec<&str>)> {
        let mut groups: Vec<(&DivergentAnswer, Vec<&str>)> = Vec::new();
        for said in &self.said {
            let is_same = |known: &DivergentAnswer| {
                (&known.rcode, &known.data, known.serial) == (&said.rcode, &said.data, said.serial)
            };
            match groups.iter_mut().find(|(known, _)| is_same(known)) {
                Some((_, who)) => who.push(&said.backend),
                None => groups.push((said, vec![&said.backend])),
            }
        }
        groups.sort_by_key(|(_, who)| who.len());
        groups
    }
}

impl DivergentAnswer {
    /// Returns the answer in one line.
    pub fn line(&self) -> String {
        let serial = self.serial.map(|serial| format!(", serial {serial}")).unwrap_or_default();
        format!("{} {}{serial}", self.rcode, self.data)
    }
}
