/// A number of bytes as people write it: `245 MB`, `1.3 GB`.
pub fn size(bytes: i64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    let mut value = bytes.max(0) as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    let decimals = usize::from(value < 9.95 && unit != "B");
    format!("{value:.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes() {
        for (bytes, text) in [
            (0, "0 B"),
            (-1, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (245_400_000, "245 MB"),
            (999_600_000, "1.0 GB"),
            (1_340_000_000, "1.3 GB"),
            (i64::MAX, "9223372 TB"),
        ] {
            assert_eq!(super::size(bytes), text);
        }
    }
}
