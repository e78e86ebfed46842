//! Host functions that fail on purpose.

/// Tells host functions to answer a status without doing anything.
///
/// ```
/// use tollgate_harness::vm::Faults;
/// let faults = Faults::new()
///     .answer("proxy_get_shared_data", 10).always()
///     .answer("proxy_get_property", 2).nth(3);
/// # let _ = faults;
/// ```
#[derive(Clone, Debug, Default)]
pub struct Faults(Vec<Fault>);

#[derive(Clone, Debug)]
struct Fault {
    hostcall: String,
    status: u32,
    when: When,
    calls: u64,
}

#[derive(Clone, Copy, Debug)]
enum When {
    Always,
    Nth(u64),
}

impl Faults {
    /// No faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes `hostcall` answer `status`, which need not be one that the ABI knows. Say next when.
    pub fn answer(self, hostcall: &str, status: u32) -> FaultRule {
        FaultRule {
            faults: self,
            hostcall: hostcall.to_owned(),
            status,
        }
    }

    /// Counts a call of `hostcall`; the status it must answer, where a rule is due.
    pub(crate) fn take(&mut self, hostcall: &str) -> Option<u32> {
        let mut answer = None;
        for fault in self.0.iter_mut().filter(|f| f.hostcall == hostcall) {
            fault.calls += 1;
            let due = match fault.when {
                When::Always => true,
                When::Nth(n) => fault.calls == n,
            };
            if due && answer.is_none() {
                answer = Some(fault.status);
            }
        }
        answer
    }
}

/// A fault without its time.
#[derive(Clone, Debug)]
#[must_use = "say when: once, always or nth"]
pub struct FaultRule {
    faults: Faults,
    hostcall: String,
    status: u32,
}

impl FaultRule {
    /// The first call fails.
    #[must_use]
    pub fn once(self) -> Faults {
        self.when(When::Nth(1))
    }

    /// Every call fails.
    #[must_use]
    pub fn always(self) -> Faults {
        self.when(When::Always)
    }

    /// The `n`-th call fails, counted from 1.
    #[must_use]
    pub fn nth(self, n: u64) -> Faults {
        self.when(When::Nth(n))
    }

    fn when(mut self, when: When) -> Faults {
        self.faults.0.push(Fault {
            hostcall: self.hostcall,
            status: self.status,
            when,
            calls: 0,
        });
        self.faults
    }
}
