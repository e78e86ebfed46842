//! What a client or an operator asks about counters: which ones, and what is to be done with them. Where counters are kept is not known
//! here.

pub(crate) mod directive;
pub(crate) mod statement;

use crate::counter::Correction;
use crate::lease::Claim;
use crate::ledger::{Account, Charge};
use crate::window::Window;

/// What is asked.
#[derive(Debug)]
pub(crate) struct Enquiry {
    pub(crate) order: Order,
    pub(crate) asked: Vec<Asked>,
}

/// One counter that is asked about.
#[derive(Debug)]
pub(crate) enum Asked {
    /// The windows of a rule, for one subject. The charge's amount is 0.
    Windows(Charge),
    /// The leases of a rule, for one subject. They are this gateway's own, whatever the policy.
    Leases(Claim),
}

/// What is to be done with a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Read,
    /// Of one window, or of all of the rule's. Leases know no other correction than [`Correction::Reset`].
    Correct(Correction, Option<Window>),
}

/// How a counter stands, after what was done with it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) stands: Stands,
    /// It is shared with others for want of room, and has not been corrected.
    pub(crate) shared: bool,
}

#[derive(Debug)]
pub(crate) enum Stands {
    Windows(Account),
    Leases { rule: usize, most: u64, held: u64 },
}
