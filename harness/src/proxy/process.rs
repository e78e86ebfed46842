//! What the system says of this process, under the names that Prometheus' client libraries use. Linux tells it under
//! `/proc`; where it does not, there is nothing to show.

use std::fs;

/// Steps in which the kernel counts processor time for user space, in one second: `USER_HZ`, 100 on every architecture
/// that this runs on.
const TICKS: f64 = 100.0;

/// Figures of this process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Process {
    pub(super) resident_bytes: Option<u64>,
    pub(super) cpu_seconds: Option<f64>,
    pub(super) open_files: Option<usize>,
    pub(super) threads: Option<u64>,
}

impl Process {
    pub(super) fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let row = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Self {
            resident_bytes: row("VmRSS:").map(|kibibytes| kibibytes.saturating_mul(1024)),
            cpu_seconds: fs::read_to_string("/proc/self/stat")
                .ok()
                .and_then(|stat| cpu_seconds(&stat)),
            open_files: fs::read_dir("/proc/self/fd").ok().map(Iterator::count),
            threads: row("Threads:"),
        }
    }
}

/// Fields 14 and 15 of proc(5)'s `stat`. The second field, the program's name, may hold spaces and parentheses.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_a_name_with_parentheses() {
        let stat = "7 (a) b)) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 4 0 1 1 1";
        assert_eq!(cpu_seconds(stat), Some(3.0));
    }

    #[test]
    fn this_process_has_memory_files_and_threads() {
        let now = Process::now();
        assert!(now.resident_bytes > Some(1 << 20), "{now:?}");
        assert!(
            now.open_files >= Some(3) && now.threads >= Some(1),
            "{now:?}"
        );
        assert!(now.cpu_seconds.is_some(), "{now:?}");
    }
}
