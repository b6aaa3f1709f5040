//! An alias table (Walker, Vose): a weighted draw from thousands of members with two multiplications and one
//! lookup.
//!
//! Every member has a bucket as large as the sum of the weights. A member with less than an even share gives
//! the rest of its bucket to a member with more.

#[derive(Clone, Debug)]
pub(super) struct Alias {
    buckets: Box<[AliasBucket]>,
    total: u64,
}

#[derive(Clone, Copy, Debug)]
struct AliasBucket {
    own: u32,
    other: u16,
}

impl Alias {
    pub(super) fn new(weights: impl ExactSizeIterator<Item = u16> + Clone) -> Self {
        let members = weights.len() as u64;
        let total: u64 = weights.clone().map(u64::from).sum();
        // The remaining parts of each member. A bucket holds `total` parts, and all parts together fill all
        // buckets.
        let mut left: Vec<u64> = weights.map(|weight| u64::from(weight) * members).collect();
        let mut buckets: Box<[_]> =
            (0..left.len()).map(|member| AliasBucket { own: total as u32, other: member as u16 }).collect();
        let (mut poor, mut rich): (Vec<usize>, Vec<usize>) = (0..left.len()).partition(|&member| left[member] < total);
        while let (Some(one), Some(&other)) = (poor.pop(), rich.last()) {
            buckets[one] = AliasBucket { own: left[one] as u32, other: other as u16 };
            left[other] -= total - left[one];
            if left[other] < total {
                rich.pop();
                poor.push(other);
            }
        }
        Self { buckets, total }
    }

    /// Returns the member for a random number of 64 bits, used as a fraction. The table must not be empty.
    pub(super) fn at(&self, part: u64) -> usize {
        let scaled = u128::from(part) * self.buckets.len() as u128;
        let (bucket, within) = ((scaled >> 64) as usize, scaled as u64);
        let AliasBucket { own, other } = self.buckets[bucket];
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
            // Both ends of the range map to a member.
            prop_assert!(table.at(0) < weights.len() && table.at(u64::MAX) < weights.len());
        }
    }
}
