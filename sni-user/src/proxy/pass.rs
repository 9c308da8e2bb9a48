//! Passing a connection through: the datapath does it, or until it can the relay.

use std::time::Duration;

use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};

use super::{
    connect::Hold,
    hand_off::{self, Moment, NotHandedOff, Outcome},
    relay::{self, End, Relayed},
    story::Carried,
};

/// How long to wait for a moment at which both sides are silent.
const PATIENCE: Duration = Duration::from_secs(1);

/// The pauses between attempts are doubled each time, up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// Passes a connection through to its end, or to where it is the datapath's. So many bytes were `waiting` when its ClientHello was complete.
pub(super) async fn through(
    carried: &mut Carried<'_>,
    client: TcpStream,
    (edge, mut hold): (TcpStream, Hold),
    waiting: u32,
    idle: Duration,
) {
    let mut passed = Relayed {
        to_edge: 0,
        to_client: 0,
        end: End::Closed,
    };
    let mut attempts = 0;
    let began = Instant::now();
    let mut moment = Moment::First { waiting };
    loop {
        let why = match carried.terms() {
            Ok(terms) => {
                match hand_off::hand_off(carried.proxy, &client, &edge, &terms, moment).await {
                    Outcome::HandedOff {
                        to_edge,
                        to_client,
                        unseen,
                    } => {
                        passed.to_edge += to_edge;
                        passed.to_client += to_client;
                        hold.hand_off();
                        carried.handed_off(&passed, unseen);
                        return hand_off::close(client, edge).await;
                    }
                    Outcome::Reset { to_edge, to_client } => {
                        carried.progress.reached(to_edge, to_client);
                        passed.end = End::Reset;
                        return carried.passed(&passed);
                    }
                    Outcome::Kept(why) => why,
                }
            }
            Err(why) => why,
        };
        carried.kept(&why);
        let pause = again(carried, &why, attempts);
        let relayed = relay::relay(&client, &edge, idle, pause, &carried.progress).await;
        passed.to_edge += relayed.to_edge;
        passed.to_client += relayed.to_client;
        passed.end = relayed.end;
        if relayed.end != End::Paused {
            return carried.passed(&passed);
        }
        attempts += 1;
        moment = if began.elapsed() < PATIENCE {
            Moment::Quiet
        } else {
            Moment::Any
        };
    }
}

/// Waits until it is worth asking again: some time later, where there was no room, or with another configuration that lets it go.
async fn again(carried: &Carried<'_>, why: &NotHandedOff, attempts: u32) {
    let later = async {
        match why.passes_in() {
            Some(pause) => {
                let longer = 2u32.saturating_pow(attempts);
                sleep(pause.saturating_mul(longer).min(LONGEST_PAUSE)).await;
            }
            None => std::future::pending().await,
        }
    };
    let otherwise = async {
        loop {
            carried.proxy.next_configuration().await;
            if matches!(why, NotHandedOff::Off | NotHandedOff::Unconfigured)
                && carried.terms().is_ok()
            {
                return;
            }
        }
    };
    tokio::select! {
        () = later => {}
        () = otherwise => {}
    }
}
