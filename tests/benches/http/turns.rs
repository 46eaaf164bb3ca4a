//! Servers under the same load, one after another in many turns: a machine that slows down for a while slows all of them.

use keyway_performance::{Comparison, Samples, Side};

use crate::Fallible;
use crate::load::Load;

/// A server's name, and what loads it for one turn.
pub(crate) type Loaded<'a> = (&'a str, &'a dyn Fn() -> Fallible<Load>);

/// What is compared.
#[derive(Clone, Copy)]
pub(crate) struct What<'a> {
    pub(crate) operation: &'a str,
    pub(crate) transport: &'a str,
    pub(crate) connections: usize,
}

/// Loads all sides in each turn. The order changes from turn to turn, so that none always follows the same one.
pub(crate) fn in_turns(what: What<'_>, turns: u32, sides: &[Loaded<'_>]) -> Fallible<Comparison> {
    let mut loads: Vec<Vec<Load>> = vec![Vec::new(); sides.len()];
    for turn in 0..turns {
        let mut order: Vec<_> = sides.iter().zip(&mut loads).collect();
        if turn % 2 == 1 {
            order.reverse();
        }
        for ((_, load), loads) in order {
            loads.push(load()?);
        }
    }
    let side = |((name, _), loads): (&Loaded<'_>, &Vec<Load>)| {
        let of = |value: fn(&Load) -> f64| Samples::of(loads.iter().map(value).collect());
        Side {
            name: (*name).to_owned(),
            rate: of(|load| load.per_second),
            p50_ms: of(|load| load.p50),
            p99_ms: of(|load| load.p99),
            user_us: of(|load| load.user),
            system_us: of(|load| load.system),
        }
    };
    Ok(Comparison {
        operation: what.operation.to_owned(),
        transport: what.transport.to_owned(),
        connections: what.connections,
        sides: sides.iter().zip(&loads).map(side).collect(),
        ratios: Vec::new(),
    })
}
