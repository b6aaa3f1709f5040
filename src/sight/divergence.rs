//! What members of a pool answer differently, as JSON: who says what, and since when.

use serde::{Deserialize, Serialize};

/// All that is known of that.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Divergences {
    /// Those that were seen first come first.
    pub divergences: Vec<Divergence>,
    /// The pools of which nothing is compared.
    pub not_compared: Vec<String>,
}

/// A question that members answer differently.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// The pool.
    pub pool: String,
    /// The name asked for.
    pub name: String,
    /// The type.
    #[serde(rename = "type")]
    pub qtype: String,
    /// The class, unless it is IN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// RD, CD and DO, as far as they are set.
    pub flags: Vec<String>,
    /// How they differ: rcode, data or serial.
    pub kind: String,
    /// When it was seen first, Unix time.
    pub since: f64,
    /// When it was seen last.
    pub seen: f64,
    /// Who says what.
    pub said: Vec<Said>,
}

/// What a member says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Said {
    /// The member.
    pub backend: String,
    /// The rcode.
    pub rcode: String,
    /// The first few of the answer records.
    pub data: String,
    /// The version of the zone that it has, if it has told that.
    pub serial: Option<u32>,
}

impl Divergence {
    /// Who says the same, in groups: the rcode, the data and the serials of each, and who it is. The smallest group comes first, for
    /// that is most likely the one to look after.
    pub fn groups(&self) -> Vec<(&Said, Vec<&str>)> {
        let mut groups: Vec<(&Said, Vec<&str>)> = Vec::new();
        for said in &self.said {
            let is_same =
                |known: &Said| (&known.rcode, &known.data, known.serial) == (&said.rcode, &said.data, said.serial);
            match groups.iter_mut().find(|(known, _)| is_same(known)) {
                Some((_, who)) => who.push(&said.backend),
                None => groups.push((said, vec![&said.backend])),
            }
        }
        groups.sort_by_key(|(_, who)| who.len());
        groups
    }
}

impl Said {
    /// What it says, in one line.
    pub fn line(&self) -> String {
        let serial = self.serial.map(|serial| format!(", serial {serial}")).unwrap_or_default();
        format!("{} {}{serial}", self.rcode, self.data)
    }
}
