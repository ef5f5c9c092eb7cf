//! Ways by which this machine writes memory to its disks.

use std::fs;

/// Where it swaps to; swap in compressed memory (zram) does not count.
pub fn swap() -> Option<String> {
    swap_in(&fs::read_to_string("/proc/swaps").unwrap_or_default())
}

fn swap_in(table: &str) -> Option<String> {
    let names: Vec<&str> = table
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| !name.starts_with("/dev/zram"))
        .collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// The program that gets the memory of programs that crash, whatever their limits say (core(5)). Files are not written: pods
/// begin with a limit of zero for those.
pub fn core_dumps() -> Option<String> {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    pattern.trim().strip_prefix('|')?.split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_that_is_memory_does_not_count() {
        let head = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        assert_eq!(swap_in(head), None);
        assert_eq!(swap_in(&format!("{head}/dev/zram0  partition\t1\t0\t100\n")), None);
        let both = format!(
            "{head}/dev/zram0 partition 1 0 100\n/swapfile file 1 0 -2\n/dev/sda2 partition 1 0 -3\n"
        );
        assert_eq!(swap_in(&both).as_deref(), Some("/swapfile, /dev/sda2"));
    }
}
