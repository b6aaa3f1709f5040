//! An order for all LS of a fleet: what somebody wants done with one backend of one pool, until he takes it back or its time is over.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::entry::{escaped, unescaped};
use crate::address::is_unseen;
use crate::metrics::Order;

impl Order {
    /// Octets of the JSON of one at most.
    pub const MAX_LEN: usize = 4096;

    /// Characters of its texts at most.
    const MAX_TEXT: usize = 200;

    /// Reads the JSON of one. Texts are cut, and lose what a terminal would obey.
    ///
    /// # Errors
    /// If it is no order; says why.
    pub fn from_json(json: &[u8]) -> Result<Self, String> {
        if json.len() > Self::MAX_LEN {
            return Err(format!("{} octets, expected {} at most", json.len(), Self::MAX_LEN));
        }
        let order: Self = serde_json::from_slice(json).map_err(|error| format!("no order: {error}"))?;
        let text = |text: String| text.chars().filter(|letter| !is_unseen(*letter)).take(Self::MAX_TEXT).collect();
        Ok(Self { order: order.order, by: text(order.by), at: text(order.at), until: order.until.map(text) })
    }

    /// The JSON of it.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("words and texts are JSON")
    }
}

/// All orders in force, by pool and backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders(BTreeMap<String, Order>);

impl Orders {
    /// Orders that are kept. An operator who gives more has another problem.
    pub const MAX: usize = 10_000;

    /// Puts an order in force, or takes it back, by its place below the prefix of orders. What is beyond the bound is no order.
    pub fn set(&mut self, place: &str, order: Option<Order>) {
        match order {
            None => drop(self.0.remove(place)),
            Some(_) if self.0.len() >= Self::MAX && !self.0.contains_key(place) => {}
            Some(order) => drop(self.0.insert(place.to_owned(), order)),
        }
    }

    /// The order for a backend of a pool, which may be meant by its name or by its address.
    pub fn find(&self, pool: &str, name: &str, address: &str) -> Option<&Order> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&Self::place(pool, name)).or_else(|| self.0.get(&Self::place(pool, address)))
    }

    /// Where an order stands.
    pub fn place(pool: &str, backend: &str) -> String {
        format!("{}/{}", escaped(pool), escaped(backend))
    }

    /// All of them, each with pool and backend.
    pub fn iter(&self) -> impl Iterator<Item = (String, String, &Order)> {
        self.0.iter().filter_map(|(place, order)| {
            let (pool, backend) = place.split_once('/')?;
            Some((unescaped(pool)?, unescaped(backend)?, order))
        })
    }

    /// Ends those of which this says that they are over.
    pub fn retain(&mut self, is_in_force: impl Fn(&Order) -> bool) -> bool {
        let before = self.0.len();
        self.0.retain(|_, order| is_in_force(order));
        self.0.len() != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::OrderWord;

    #[test]
    fn orders_are_read() {
        let order = Order {
            order: OrderWord::Drain,
            by: "ann@ops".to_owned(),
            at: "2026-11-23T05:49:30Z".to_owned(),
            until: None,
        };
        assert_eq!(order.to_json(), r#"{"order":"drain","by":"ann@ops","at":"2026-11-23T05:49:30Z"}"#);
        assert_eq!(Order::from_json(order.to_json().as_bytes()), Ok(order));
        let read = Order::from_json(br#"{"order":"up","by":"a\u001bb","more":1}"#).expect("an order");
        assert_eq!((read.order, &*read.by, &*read.at), (OrderWord::Up, "ab", ""));
        for wrong in ["", "[]", "{}", r#"{"order":"auto"}"#, r#"{"order":"Drain"}"#] {
            assert!(Order::from_json(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(Order::from_json(&[b' '; 5000]).is_err());
    }

    #[test]
    fn an_order_is_found_by_name_or_address() {
        let order = |word| Order { order: word, by: String::new(), at: String::new(), until: None };
        let mut orders = Orders::default();
        assert_eq!(orders.find("ts", "one", "192.0.2.1:53"), None);
        orders.set(&Orders::place("a/b", "192.0.2.1:53"), Some(order(OrderWord::Down)));
        assert_eq!(orders.find("a/b", "one", "192.0.2.1:53"), Some(&order(OrderWord::Down)));
        orders.set("a%2Fb/one", Some(order(OrderWord::Up)));
        assert_eq!(orders.find("a/b", "one", "192.0.2.1:53"), Some(&order(OrderWord::Up)), "the name is more exact");
        assert_eq!(orders.find("a", "one", "192.0.2.1:53"), None);
        let all: Vec<_> = orders.iter().map(|(pool, backend, _)| (pool, backend)).collect();
        assert_eq!(all, [("a/b", "192.0.2.1:53"), ("a/b", "one")].map(|(a, b)| (a.to_owned(), b.to_owned())));
        orders.set("a%2Fb/one", None);
        assert!(orders.retain(|order| order.order != OrderWord::Down));
        assert_eq!(orders, Orders::default());
    }
}
