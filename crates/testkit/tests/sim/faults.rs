//! What goes wrong: drawn from the seed, each fault for its time. Each world has its own mix, so that some see few kinds and often.
use crate::{chance::Dice, controller::Controller, host::Host, line::Wire, operator::Operator};
use std::{sync::Arc, time::Duration};
use store::faulty::Way;
use tokio::{task::JoinSet, time::sleep};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Kill,
    Pause,
    Cut,
    NoAnswers,
    Full,
    Weather,
    Wire,
    Agent,
    Power,
    Guest,
}

const KINDS: [Kind; 10] = [
    Kind::Kill,
    Kind::Pause,
    Kind::Cut,
    Kind::NoAnswers,
    Kind::Full,
    Kind::Weather,
    Kind::Wire,
    Kind::Agent,
    Kind::Power,
    Kind::Guest,
];

/// Faults until it is dropped; then nothing is healed.
pub(crate) async fn strike(dice: Dice, controllers: Vec<Arc<Controller>>, hosts: Vec<Arc<Host>>, operator: Arc<Operator>) {
    let mut kinds: Vec<Kind> = KINDS.into_iter().filter(|_| dice.chance(0.6)).collect();
    if kinds.is_empty() {
        kinds.push(Kind::Weather);
    }
    let mean = dice.seconds(1.5..8.0).as_secs_f64();
    let base = dice.pick(&[0.0, 0.0, 0.02, 0.02, 0.2]).copied().unwrap_or_default();
    let latency = dice.seconds(0.0..0.03);
    controllers.iter().for_each(|c| c.weather(base, latency));
    let mut under_way = JoinSet::new();
    let dice = Arc::new(dice);
    loop {
        sleep(dice.seconds(0.1..2.0 * mean)).await;
        while under_way.try_join_next().is_some() {}
        let (Some(kind), Some(c), Some(h)) = (dice.pick(&kinds), dice.pick(&controllers), dice.pick(&hosts)) else { return };
        let (kind, c, h, dice, operator) = (*kind, c.clone(), h.clone(), dice.clone(), operator.clone());
        under_way.spawn(async move {
            match kind {
                Kind::Kill => {
                    if c.process().is_some() {
                        c.kill();
                        sleep(dice.seconds(0.2..15.0)).await;
                        c.start().await;
                    }
                }
                Kind::Pause => {
                    if !c.is_paused() {
                        c.pause(true);
                        // Most are about as long as leases are; some are long.
                        let time = if dice.chance(0.8) { dice.seconds(0.5..9.0) } else { dice.seconds(9.0..60.0) };
                        sleep(time).await;
                        c.pause(false);
                    }
                }
                Kind::Cut | Kind::NoAnswers | Kind::Full => {
                    c.cut(match kind {
                        Kind::Cut => Way::Cut,
                        Kind::Full => Way::Full,
                        _ => Way::NoAnswers,
                    });
                    sleep(dice.seconds(0.5..20.0)).await;
                    c.cut(Way::Open);
                }
                Kind::Weather => {
                    let rate = dice.pick(&[0.0, 0.02, 0.2]).copied().unwrap_or_default();
                    c.weather(rate, dice.seconds(0.0..0.2));
                    sleep(dice.seconds(2.0..20.0)).await;
                    c.weather(base, latency);
                }
                Kind::Wire => {
                    h.set_wire(*dice.pick(&[Wire::Cut, Wire::Cut, Wire::OnlyUp, Wire::OnlyDown]).unwrap_or(&Wire::Cut));
                    let time = if dice.chance(0.7) { dice.seconds(0.2..12.0) } else { dice.seconds(12.0..100.0) };
                    sleep(time).await;
                    h.set_wire(Wire::Open);
                }
                Kind::Agent => {
                    h.kill_agent();
                    sleep(dice.seconds(0.1..10.0)).await;
                    h.start();
                }
                Kind::Power => {
                    if h.has_power() {
                        h.lose_power();
                        h.outage(outage(h.clone(), operator, dice));
                    }
                }
                Kind::Guest => h.hurt_a_guest(),
            }
        });
    }
}

/// A host without power, until it has it again. An operator may not wait for that.
async fn outage(host: Arc<Host>, operator: Arc<Operator>, dice: Arc<Dice>) {
    let is_evacuated = dice.chance(0.5);
    sleep(dice.seconds(1.0..30.0)).await;
    if is_evacuated {
        operator.evacuate(&host.name).await;
    }
    sleep(dice.seconds(0.0..60.0)).await;
    host.power_on();
    if is_evacuated {
        sleep(dice.seconds(0.0..20.0)).await;
        operator.is_back(&host.name).await;
    }
}

/// Everything works again. Faults must have been dropped.
pub(crate) async fn heal(controllers: &[Arc<Controller>], hosts: &[Arc<Host>]) {
    for c in controllers {
        c.weather(0.0, Duration::from_millis(1));
        c.cut(Way::Open);
        if c.is_paused() {
            c.pause(false);
        }
        if c.process().is_none() {
            c.start().await;
        }
    }
    for h in hosts {
        h.set_wire(Wire::Open);
        h.outage_over().await;
        h.start();
    }
}
