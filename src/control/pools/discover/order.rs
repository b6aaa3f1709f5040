//! An order for all forwarders of a fleet: an operator's setting for one backend of one pool.

use std::collections::BTreeMap;

use dns::address::is_unseen;
use metrics::BackendOrder;
use serde::{Deserialize, Serialize};

use super::entry::{escaped, unescaped};

/// The largest JSON of one order, in bytes.
const MAX_LEN: usize = 4096;

const MAX_TEXT: usize = 200;

/// Reads the JSON of an order. Texts are cut, and lose characters that control a terminal.
pub fn read_order(json: &[u8]) -> Result<BackendOrder, String> {
    if json.len() > MAX_LEN {
        return Err(format!("{} octets, expected {MAX_LEN} at most", json.len()));
    }
    let order: BackendOrder = serde_json::from_slice(json).map_err(|error| format!("no order: {error}"))?;
    let text = |text: String| text.chars().filter(|letter| !is_unseen(*letter)).take(MAX_TEXT).collect();
    Ok(BackendOrder { order: order.order, by: text(order.by), at: text(order.at), until: order.until.map(text) })
}

/// Returns the JSON of an order.
pub fn order_json(order: &BackendOrder) -> String {
    serde_json::to_string(order).expect("words and texts are JSON")
}

/// All orders that apply, by pool and backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders(BTreeMap<String, BackendOrder>);

impl Orders {
    /// The largest number of orders.
    pub const MAX: usize = 10_000;

    /// Sets or removes an order by its place below the prefix of orders. Orders beyond the bound are ignored.
    pub fn set(&mut self, place: &str, order: Option<BackendOrder>) {
        match order {
            None => drop(self.0.remove(place)),
            Some(_) if self.0.len() >= Self::MAX && !self.0.contains_key(place) => {}
            Some(order) => drop(self.0.insert(place.to_owned(), order)),
        }
    }

    /// Returns the order for a backend of a pool, given by name or address.
    pub fn find(&self, pool: &str, name: &str, address: &str) -> Option<&BackendOrder> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&Self::place(pool, name)).or_else(|| self.0.get(&Self::place(pool, address)))
    }

    /// Returns the place of an order.
    pub fn place(pool: &str, backend: &str) -> String {
        format!("{}/{}", escaped(pool), escaped(backend))
    }

    /// Iterates over all orders, each with pool and backend.
    pub fn iter(&self) -> impl Iterator<Item = (String, String, &BackendOrder)> {
        self.0.iter().filter_map(|(place, order)| {
            let (pool, backend) = place.split_once('/')?;
            Some((unescaped(pool)?, unescaped(backend)?, order))
        })
    }

    /// Removes the orders for which the closure returns false. Returns true if there were any.
    pub fn retain(&mut self, is_in_force: impl Fn(&BackendOrder) -> bool) -> bool {
        let before = self.0.len();
        self.0.retain(|_, order| is_in_force(order));
        self.0.len() != before
    }
}

#[cfg(test)]
mod tests {
    use metrics::OrderWord;

    use super::*;

    #[test]
    fn orders_are_read() {
        let order = BackendOrder {
            order: OrderWord::Drain,
            by: "ann@ops".to_owned(),
            at: "2026-11-23T05:49:30Z".to_owned(),
            until: None,
        };
        assert_eq!(order_json(&order), r#"{"order":"drain","by":"ann@ops","at":"2026-11-23T05:49:30Z"}"#);
        assert_eq!(read_order(order_json(&order).as_bytes()), Ok(order));
        let read = read_order(br#"{"order":"up","by":"a\u001bb","more":1}"#).expect("an order");
        assert_eq!((read.order, &*read.by, &*read.at), (OrderWord::Up, "ab", ""));
        for wrong in ["", "[]", "{}", r#"{"order":"auto"}"#, r#"{"order":"Drain"}"#] {
            assert!(read_order(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(read_order(&[b' '; 5000]).is_err());
    }

    #[test]
    fn an_order_is_found_by_name_or_address() {
        let order = |word| BackendOrder { order: word, by: String::new(), at: String::new(), until: None };
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
