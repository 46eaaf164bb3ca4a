use std::net::IpAddr;
use std::str::FromStr;

/// A network such as `10.0.0.0/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    bits: u32,
}

impl Network {
    /// Whether the address is in the network. An IPv4-mapped IPv6 address is its IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                let differ = first.to_bits() ^ address.to_bits();
                differ.checked_shr(32 - self.bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                let differ = first.to_bits() ^ address.to_bits();
                differ.checked_shr(128 - self.bits).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (first, bits) = match text.split_once('/') {
            Some((first, bits)) => (first, Some(bits)),
            None => (text, None),
        };
        let first: IpAddr = first.parse().map_err(|_| ())?;
        let all = if first.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => all,
            Some(bits) => bits.parse().map_err(|_| ())?,
        };
        // `::ffff:10.0.0.0/104` is `10.0.0.0/8`. A shorter prefix contains more than mapped addresses, so it stays IPv6.
        let (first, bits, all) = match first.to_canonical() {
            IpAddr::V4(mapped) if first.is_ipv6() && (96..=128).contains(&bits) => {
                (IpAddr::V4(mapped), bits - 96, 32)
            }
            _ => (first, bits, all),
        };
        let network = Self { first, bits };
        // Bits set beyond the prefix make the network ambiguous.
        let is_first = |host: u128| host.checked_shl(128 - (all - bits)).unwrap_or(0) == 0;
        let host = match first {
            IpAddr::V4(first) => u128::from(first.to_bits()),
            IpAddr::V6(first) => first.to_bits(),
        };
        (bits <= all && is_first(host)).then_some(network).ok_or(())
    }
}
