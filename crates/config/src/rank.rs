//! Ranks of replies, and the replies that end a race at once.

use hedge::race::ReplyRank;
use serde::{Deserialize, Serialize};

/// The rank of a reply, worst first (docs/src/contract.md, Races). A better rank replaces a kept one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rank {
    /// Every rcode except NOERROR and NXDOMAIN.
    Failure,
    /// A negative reply from an older version of the zone than another backend has.
    Outdated,
    /// NODATA without AA, not from an authority.
    Nodata,
    /// NXDOMAIN.
    Nxdomain,
    /// NODATA from an authority (AA).
    NodataAuthoritative,
    /// NOERROR with answer records or a referral, or TC.
    Positive,
    /// A decision of a validator whose clock may be wrong (EDE 7 or 8).
    Doubtful,
    /// A failure or negative reply whose extended error is a decision, such as failed validation.
    Decided,
}

impl ReplyRank for Rank {
    fn is_failure(self) -> bool {
        self <= Self::Outdated
    }

    fn is_provisional(self) -> bool {
        self == Self::Doubtful
    }
}

/// The replies that win at once.
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
    /// Returns true if a reply of this rank wins at once. A decision always does, unless it is doubtful.
    pub fn accepts(self, rank: Rank) -> bool {
        match self {
            _ if rank == Rank::Doubtful => false,
            Self::Positive => rank >= Rank::NodataAuthoritative,
            Self::Conclusive => rank > Rank::Outdated,
            Self::Any => rank != Rank::Outdated,
        }
    }

    /// Returns the lowest rank that wins at once.
    pub fn lowest(self) -> Rank {
        match self {
            Self::Positive => Rank::NodataAuthoritative,
            Self::Conclusive => Rank::Nodata,
            Self::Any => Rank::Failure,
        }
    }
}
