//! How replies rank, and which of them end a race at once.

use serde::{Deserialize, Serialize};

/// The rank of a reply, worst first (docs/src/contract.md, Races). A better rank replaces a kept one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rank {
    /// Every rcode but NOERROR and NXDOMAIN.
    Failure,
    /// A negative reply of an older version of the zone than another backend has: no word on what the zone has now.
    Outdated,
    /// NODATA without AA: from something that is no authority for the name.
    Nodata,
    /// NXDOMAIN.
    Nxdomain,
    /// NODATA from an authority (AA).
    NodataAuthoritative,
    /// NOERROR with answer records or a referral, or TC.
    Positive,
    /// A decision of a validator whose clock may be wrong (EDE 7 or 8): only a positive reply that is validated replaces it.
    Doubtful,
    /// A failure or a negative reply whose extended error is a decision of its backend: it fails validation, or is blocked.
    Decided,
}

/// Which replies are accepted, that is, win at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// The first positive reply or authoritative NODATA.
    Positive,
    /// The first reply that is no failure.
    Conclusive,
    /// The first reply.
    Any,
}

impl Accept {
    /// True if a reply of this rank wins at once. A decision does so whatever is accepted, unless it is doubtful.
    pub fn accepts(self, rank: Rank) -> bool {
        match self {
            _ if rank == Rank::Doubtful => false,
            Self::Positive => rank >= Rank::NodataAuthoritative,
            Self::Conclusive => rank > Rank::Outdated,
            Self::Any => rank != Rank::Outdated,
        }
    }
}
