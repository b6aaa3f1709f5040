//! An alias table (Walker, Vose): a draw by weight among thousands, for two multiplications and one look at a table.
//!
//! Every member has a bucket, and all buckets are as large as the sum of the weights. A member with less than an even share leaves
//! the rest of its bucket to one that has more. All of it is whole numbers, so that the shares are exact.

/// Draws members by weight.
#[derive(Clone, Debug)]
pub(super) struct Alias {
    buckets: Box<[Bucket]>,
    /// The sum of the weights, which each bucket holds.
    total: u64,
}

/// The part of a draw that one member has, and who has the rest.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Its own part of the bucket.
    own: u32,
    /// Whose the rest is.
    other: u16,
}

impl Alias {
    /// A table of members with these weights, of which none is 0.
    pub(super) fn new(weights: impl ExactSizeIterator<Item = u16> + Clone) -> Self {
        let members = weights.len() as u64;
        let total: u64 = weights.clone().map(u64::from).sum();
        // What each has, in parts of which a bucket holds `total`: all together they fill all buckets.
        let mut left: Vec<u64> = weights.map(|weight| u64::from(weight) * members).collect();
        let mut buckets: Box<[_]> =
            (0..left.len()).map(|member| Bucket { own: total as u32, other: member as u16 }).collect();
        let (mut poor, mut rich): (Vec<usize>, Vec<usize>) = (0..left.len()).partition(|&member| left[member] < total);
        while let (Some(one), Some(&other)) = (poor.pop(), rich.last()) {
            buckets[one] = Bucket { own: left[one] as u32, other: other as u16 };
            left[other] -= total - left[one];
            if left[other] < total {
                rich.pop();
                poor.push(other);
            }
        }
        Self { buckets, total }
    }

    /// The member at this place of all draws, which 64 bits say as a part of the whole. There must be one.
    pub(super) fn at(&self, part: u64) -> usize {
        let scaled = u128::from(part) * self.buckets.len() as u128;
        let (bucket, within) = ((scaled >> 64) as usize, scaled as u64);
        let Bucket { own, other } = self.buckets[bucket];
        let place = ((u128::from(within) * u128::from(self.total)) >> 64) as u64;
        if place < u64::from(own) { bucket } else { usize::from(other) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shares_are_exact(weights in prop::collection::vec(1..=1000_u16, 1..400)) {
            let table = Alias::new(weights.iter().copied());
            let mut shares = vec![0_u64; weights.len()];
            for (member, bucket) in table.buckets.iter().enumerate() {
                prop_assert!(u64::from(bucket.own) <= table.total);
                shares[member] += u64::from(bucket.own);
                shares[usize::from(bucket.other)] += table.total - u64::from(bucket.own);
            }
            let expected: Vec<_> = weights.iter().map(|&weight| u64::from(weight) * weights.len() as u64).collect();
            prop_assert_eq!(shares, expected);
            // Both ends of the draws are somebody's.
            prop_assert!(table.at(0) < weights.len() && table.at(u64::MAX) < weights.len());
        }
    }
}
