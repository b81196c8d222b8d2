//! Names that every cloud has: the resource classes of `os-resource-classes` and the traits of `os-traits`.
use std::sync::LazyLock;

/// In the order in which they came to be.
pub(crate) const CLASSES: [&str; 21] = [
    "VCPU",
    "MEMORY_MB",
    "DISK_GB",
    "PCI_DEVICE",
    "SRIOV_NET_VF",
    "NUMA_SOCKET",
    "NUMA_CORE",
    "NUMA_THREAD",
    "NUMA_MEMORY_MB",
    "IPV4_ADDRESS",
    "VGPU",
    "VGPU_DISPLAY_HEAD",
    "NET_BW_EGR_KILOBIT_PER_SEC",
    "NET_BW_IGR_KILOBIT_PER_SEC",
    "PCPU",
    "MEM_ENCRYPTION_CONTEXT",
    "FPGA",
    "PGPU",
    "NET_PACKET_RATE_KILOPACKET_PER_SEC",
    "NET_PACKET_RATE_EGR_KILOPACKET_PER_SEC",
    "NET_PACKET_RATE_IGR_KILOPACKET_PER_SEC",
];

/// A provider with this trait gives to all that share an aggregate with it.
pub(crate) const SHARES: &str = "MISC_SHARES_VIA_AGGREGATE";

/// In order of name.
pub(crate) static TRAITS: LazyLock<Vec<&'static str>> = LazyLock::new(|| include_str!("standard_traits.txt").lines().collect());

pub(crate) fn is_class(name: &str) -> bool {
    CLASSES.contains(&name)
}

pub(crate) fn is_trait(name: &str) -> bool {
    TRAITS.binary_search(&name).is_ok()
}

/// `CUSTOM_` and capital letters, digits and `_`.
pub(crate) fn is_custom(name: &str) -> bool {
    name.len() <= 255 && name.strip_prefix("CUSTOM_").is_some_and(is_symbol)
}

/// What names of traits, resource classes and consumer types are made of.
pub(crate) fn is_symbol(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traits_are_sorted_symbols() {
        assert!(TRAITS.is_sorted() && TRAITS.len() > 300);
        assert!(TRAITS.iter().all(|t| is_symbol(t) && !is_custom(t)));
        assert!(is_trait("HW_CPU_X86_VMX") && is_trait(SHARES) && !is_trait("CUSTOM_GOLD"));
    }

    #[test]
    fn custom_names() {
        assert!(is_custom("CUSTOM_A1_"));
        for bad in ["CUSTOM_", "CUSTOM_a", "GOLD", "XCUSTOM_A", "CUSTOM_A-B"] {
            assert!(!is_custom(bad), "{bad}");
        }
        assert!(!is_custom(&format!("CUSTOM_{}", "A".repeat(249))));
    }
}
