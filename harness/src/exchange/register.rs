//! A worker's open exchanges, and which of them may have something to do.

use std::collections::{BTreeSet, HashMap};
use std::ops::Deref;

use super::{Exchange, ExchangeId};

/// The exchanges by their ids. It remembers which were lent to be changed: among ten thousand streams one event touches
/// one, and looking through the others for what it led to would cost more than the event.
#[derive(Debug, Default)]
pub(crate) struct Register {
    exchanges: HashMap<ExchangeId, Exchange>,
    touched: BTreeSet<ExchangeId>,
}

impl Deref for Register {
    type Target = HashMap<ExchangeId, Exchange>;

    fn deref(&self) -> &Self::Target {
        &self.exchanges
    }
}

impl Register {
    pub(crate) fn get_mut(&mut self, id: &ExchangeId) -> Option<&mut Exchange> {
        let exchange = self.exchanges.get_mut(id)?;
        self.touched.insert(*id);
        Some(exchange)
    }

    pub(crate) fn insert(&mut self, id: ExchangeId, exchange: Exchange) {
        self.touched.insert(id);
        self.exchanges.insert(id, exchange);
    }

    pub(crate) fn remove(&mut self, id: &ExchangeId) -> Option<Exchange> {
        self.touched.remove(id);
        self.exchanges.remove(id)
    }

    /// Those with actions, in order.
    pub(crate) fn with_actions(&self) -> Vec<ExchangeId> {
        let touched = self.touched.iter().copied();
        touched
            .filter(|id| {
                self.get(id)
                    .is_some_and(|exchange| !exchange.actions.is_empty())
            })
            .collect()
    }

    /// The actions of one were taken: until it is lent again, it has none.
    pub(crate) fn settle(&mut self, id: ExchangeId) {
        self.touched.remove(&id);
    }
}
