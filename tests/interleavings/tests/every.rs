//! Each model under every interleaving, or under every one with few preemptions.

use interleavings::models;

/// Threads change places where one blocks, and this often where none does; `None`: anywhere.
fn every(preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(model);
}

#[test]
fn waiting_without_a_scheduler() {
    every(None, models::waiting_without_a_scheduler);
}

#[test]
fn a_wake_up_against_parking() {
    every(None, models::a_wake_up_against_parking);
}

#[test]
fn two_wake_ups_at_once() {
    every(Some(4), models::two_wake_ups_at_once);
}

#[test]
fn ipis_against_hlt_on_one_worker() {
    every(None, || models::ipis_against_hlt(1));
}

#[test]
fn ipis_against_hlt_on_two_workers() {
    every(Some(3), || models::ipis_against_hlt(2));
}

#[test]
fn parking_against_a_hold() {
    every(Some(4), models::parking_against_a_hold);
}

#[test]
fn parking_against_a_kick() {
    every(None, models::parking_against_a_kick);
}

#[test]
fn a_quantums_end_against_a_wake_up() {
    every(Some(3), models::a_quantums_end_against_a_wake_up);
}

#[test]
fn parking_against_a_new_epoch() {
    every(None, models::parking_against_a_new_epoch);
}

#[test]
fn running_against_new_epochs() {
    every(Some(4), models::running_against_new_epochs);
}
