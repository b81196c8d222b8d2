//! What must hold of a port by itself: address pairs, DHCP options, its name in DNS. Pure.
use crate::{
    fail,
    resources::{DhcpOption, Port},
};
use api::{Error, Result};
use base::id::Mac;

/// Neutron's `max_allowed_address_pair`.
const MOST_PAIRS: usize = 10;
const MOST_DHCP_OPTIONS: usize = 30;

pub(crate) fn check_pairs(row: &mut Port) -> Result<()> {
    let (mac, enabled) = (row.mac_address.clone(), row.port_security_enabled == Some(true));
    let own: Vec<String> = row.addresses().map(|(_, ip)| ip.to_owned()).collect();
    let pairs = row.allowed_address_pairs.get_or_insert_default();
    if pairs.len() > MOST_PAIRS {
        let text = format!("The number of allowed address pair exceeds the maximum {MOST_PAIRS}.");
        return Err(fail::wrong("AllowedAddressPairExhausted", text));
    }
    if !pairs.is_empty() && !enabled {
        let text = "Port Security must be enabled in order to have allowed address pairs on a port.";
        return Err(fail::refused("AddressPairAndPortSecurityRequired", text.into()));
    }
    for i in 0..pairs.len() {
        let (before, rest) = pairs.split_at_mut(i);
        let pair = &mut rest[0];
        if pair.ip_address.parse::<std::net::IpAddr>().is_err() && pair.ip_address.parse::<ipnet::IpNet>().is_err() {
            return Err(Error::invalid(
                "allowed_address_pairs",
                format!("'{}' is not a valid IP address or subnet", pair.ip_address),
            ));
        }
        match &mut pair.mac_address {
            None => pair.mac_address.clone_from(&mac),
            Some(text) => {
                let parsed = Mac::parse(text)
                    .ok_or_else(|| Error::invalid("allowed_address_pairs", format!("'{text}' is not a valid MAC address")))?;
                *text = parsed.to_string();
            }
        }
        if pair.mac_address == mac && own.contains(&pair.ip_address) {
            let text = "Port's Fixed IP and Mac Address match an address pair entry.";
            return Err(fail::wrong("AddressPairMatchesPortFixedIPAndMac", text.into()));
        }
        if before.contains(pair) {
            return Err(fail::wrong(
                "DuplicateAddressPairInRequest",
                format!(
                    "Request contains duplicate address pair: mac_address {} ip_address {}.",
                    pair.mac_address.as_deref().unwrap_or_default(),
                    pair.ip_address
                ),
            ));
        }
    }
    Ok(())
}

/// Options as they were, changed by what was asked: a null value takes one away. What could end a line of a configuration is refused
/// (CVE-2021-40085).
pub(crate) fn merge_options(mut held: Vec<DhcpOption>, wanted: Vec<DhcpOption>) -> Result<Vec<DhcpOption>> {
    for option in wanted {
        let name = option.opt_name.as_str();
        let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b':');
        if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
            return Err(fail::wrong(
                "ExtraDhcpOptBadData",
                format!("Invalid data format for extra-dhcp-opt: the name {name:?} is not letters, digits and '-'."),
            ));
        }
        if !matches!(option.ip_version, 4 | 6) {
            return Err(fail::wrong(
                "ExtraDhcpOptBadData",
                "Invalid data format for extra-dhcp-opt: ip_version is 4 or 6.".into(),
            ));
        }
        let value = option.opt_value.as_deref().unwrap_or_default();
        if value.len() > 255 || value.chars().any(char::is_control) || (option.opt_value.is_some() && value.trim().is_empty()) {
            return Err(fail::wrong(
                "ExtraDhcpOptBadData",
                format!("Invalid data format for extra-dhcp-opt: the value of {name} is not 1 to 255 printable characters."),
            ));
        }
        held.retain(|h| h.opt_name != option.opt_name || h.ip_version != option.ip_version);
        if option.opt_value.is_some() {
            held.push(option);
        }
    }
    if held.len() > MOST_DHCP_OPTIONS {
        return Err(fail::wrong(
            "ExtraDhcpOptBadData",
            format!("Invalid data format for extra-dhcp-opt: more than {MOST_DHCP_OPTIONS} options."),
        ));
    }
    Ok(held)
}

pub(crate) fn check_dns_name(name: &str) -> Result<()> {
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if name.is_empty() || (name.len() <= 253 && name.strip_suffix('.').unwrap_or(name).split('.').all(label)) {
        return Ok(());
    }
    Err(Error::invalid("dns_name", format!("'{name}' is not a valid host name")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(name: &str, value: Option<&str>) -> DhcpOption {
        DhcpOption { opt_name: name.into(), opt_value: value.map(Into::into), ip_version: 4 }
    }

    #[test]
    fn dhcp_options_are_merged_and_cannot_break_out() {
        let held = vec![option("tftp-server", Some("1.2.3.4")), option("bootfile-name", Some("a"))];
        let merged = merge_options(held, vec![option("tftp-server", None), option("bootfile-name", Some("b"))]).unwrap();
        assert_eq!(merged, [option("bootfile-name", Some("b"))]);
        for bad in [option("a\nb", Some("x")), option("a", Some("x\ny")), option("a", Some("x\0")), option("", Some("x"))] {
            let e = merge_options(Vec::new(), vec![bad]).unwrap_err();
            assert_eq!(e.code.as_deref(), Some("ExtraDhcpOptBadData"));
        }
    }
}
