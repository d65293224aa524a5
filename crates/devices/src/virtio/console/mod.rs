//! The console device (virtio 1.2, 5.3). With several ports: byte streams between the host and
//! programs of the guest. Without: one console, Linux's `/dev/hvc0`, with a window's size.
//!
//! ```text
//!   input ──► ConsolePort::receive ──► the guest's buffers       (on the input's thread)
//!   guest ──notify──► the console's thread ──► PortOutput
//! ```
//! Nothing is kept between: what the guest has no buffers for stays with the input, what the output
//! has no room for stays in the guest. A port that the guest closes is closed on the host's side as
//! soon as everything written before is taken, and the guest is told then: its driver's readers see
//! the end. An input that ends closes the port, too; the driver's readers get what there is, and
//! then the end.
//!
//! Locks: the device is one lock, held for a step of bounded length. A notification does not take
//! it.

mod control;
mod core;
mod port;
mod saved;
mod window;

pub use port::{PortOutput, PortStats};
pub use saved::{ConsoleState, News, PortState};
pub use window::ConsoleSize;

use self::core::{Core, queues_of};
use self::port::Port;
use self::window::Window;
use super::attendant::{Attend, Attendant, Job};
use super::chain::Broken;
use super::saved::DeviceState;
use super::worker::Service;
use super::{Activation, VirtioDevice};
use crate::saved::RestoreError;
use std::sync::{Arc, Mutex, Weak};
use std::{fmt, io};
use sync::lock;
use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;

/// VIRTIO_CONSOLE_F_SIZE.
const SIZE: u64 = 1 << 0;
/// VIRTIO_CONSOLE_F_MULTIPORT.
const MULTIPORT: u64 = 1 << 1;
/// Entries of a queue with data. Linux puts a page into each entry of those that it receives by.
const DATA_QUEUE: u16 = 128;
/// Entries of a queue that carries nothing, as it goes the other way.
const IDLE_QUEUE: u16 = 2;
/// Entries of the control queues.
const CONTROL_QUEUE: u16 = 32;
/// Where max_nr_ports is in struct virtio_console_config (5.3.4).
const MAX_NR_PORTS: usize = 4;

/// A port to be made.
pub struct PortConfig {
    /// What the guest knows it by.
    pub name: String,
    /// Where what the guest sends goes.
    pub output: Option<Box<dyn PortOutput>>,
    /// Whether the guest receives something.
    pub input: bool,
}

/// A console device.
pub struct Console {
    shared: Arc<Shared>,
    queues: Vec<u16>,
}

struct Shared {
    /// It has the queues: who feeds a port uses them, too.
    core: Arc<Mutex<Core>>,
    attendant: Attendant,
}

/// What the device does by itself.
struct Server {
    core: Arc<Mutex<Core>>,
    /// For room in the outputs.
    waits: bool,
}

impl Attend for Server {
    fn attend(&mut self, _job: &Job) -> Result<bool, (usize, Broken)> {
        Ok(lock(&self.core).serve(self.waits))
    }
}

/// A port's end on the host. Clones are the same one; they do not keep the device.
#[derive(Clone)]
pub struct ConsolePort {
    shared: Weak<Shared>,
    number: usize,
}

impl Console {
    /// A device with these ports.
    ///
    /// # Errors
    /// The host has no thread left.
    pub fn new(ports: Vec<PortConfig>, service: Service) -> io::Result<Self> {
        let mut queues = vec![CONTROL_QUEUE; 2 * ports.len() + 2];
        for (number, port) in ports.iter().enumerate() {
            let sizes = [port.input, port.output.is_some()]
                .map(|used| if used { DATA_QUEUE } else { IDLE_QUEUE });
            queues_of(number).into_iter().zip(sizes).for_each(|(at, size)| queues[at] = size);
        }
        let port =
            |(number, PortConfig { name, output, input: _ })| Port::new(number, name, output);
        Self::made(Core::new((0..).zip(ports).map(port).collect()), queues, service)
    }

    /// A device that is one console, whose output goes there; the guest knows no name of it.
    ///
    /// # Errors
    /// The host has no thread left.
    pub fn one(config: PortConfig, service: Service) -> io::Result<Self> {
        let PortConfig { name, output, input: _ } = config;
        Self::made(Core::console(Port::new(0, name, output)), vec![DATA_QUEUE; 2], service)
    }

    fn made(core: Core, queues: Vec<u16>, service: Service) -> io::Result<Self> {
        let core = Arc::new(Mutex::new(core));
        let server = Server { core: Arc::clone(&core), waits: service == Service::AtOnce };
        let attendant = Attendant::new("ports".into(), server, service)?;
        Ok(Self { shared: Arc::new(Shared { core, attendant }), queues })
    }

    /// Each port's end on the host, in their order.
    pub fn ports(&self) -> Vec<ConsolePort> {
        let port = |number| ConsolePort { shared: Arc::downgrade(&self.shared), number };
        (0..lock(&self.shared.core).ports.len()).map(port).collect()
    }
}

impl ConsolePort {
    fn with<T: Default>(&self, work: impl FnOnce(&mut Core, usize) -> T) -> T {
        self.shared.upgrade().map_or_else(T::default, |it| work(&mut lock(&it.core), self.number))
    }

    /// How many bytes the guest takes now: none before it opens the port.
    pub fn room(&self) -> usize {
        self.with(Core::room)
    }

    /// Gives the guest what `take` gives, which is told how much the guest takes now, if that is
    /// anything. `take` is called with the device locked. How many bytes the guest has got.
    pub fn receive(&self, take: impl FnOnce(usize) -> Vec<u8>) -> usize {
        self.with(|core, number| match core.room(number) {
            0 => 0,
            room => core.receive(number, &take(room)),
        })
    }

    /// The input has ended: the guest finds its end after what it has got.
    pub fn hang_up(&self) {
        if self.with(|core, number| core.ports[number].hang_up()) {
            self.wake();
        }
    }

    /// The console that this is has a window of this size.
    pub fn resize(&self, size: ConsoleSize) {
        self.with(|core, _| {
            if let Some(window) = &mut core.window {
                window.resize(size);
            }
        });
    }

    /// `drained` is called when [`ConsolePort::room`] has risen from 0. It is called with the
    /// device locked and must only ring a bell (an eventfd).
    pub fn on_drain(&self, drained: impl Fn() + Send + 'static) {
        self.with(|core, number| core.ports[number].drained = Some(Box::new(drained)));
    }

    /// The port's output has room again.
    pub fn wake(&self) {
        self.shared.upgrade().inspect(|shared| shared.attendant.ring());
    }

    /// What has passed.
    pub fn stats(&self) -> PortStats {
        self.with(|core, number| core.ports[number].stats().clone())
    }
}

impl VirtioDevice for Console {
    fn kind(&self) -> u32 {
        VIRTIO_ID_CONSOLE
    }

    fn features(&self) -> u64 {
        if lock(&self.shared.core).window.is_some() { SIZE } else { MULTIPORT }
    }

    fn queues(&self) -> &[u16] {
        &self.queues
    }

    fn read_config(&self, offset: usize, into: &mut [u8]) {
        let mut config = [0; 12];
        match &lock(&self.shared.core).window {
            Some(window) => config[..MAX_NR_PORTS].copy_from_slice(&window.config()),
            None => {
                let ports = self.queues.len() as u32 / 2 - 1;
                config[MAX_NR_PORTS..MAX_NR_PORTS + 4].copy_from_slice(&ports.to_le_bytes());
            }
        }
        into.fill(0);
        into.iter_mut().zip(config.iter().skip(offset)).for_each(|(into, byte)| *into = *byte);
    }

    fn config_generation(&self) -> u32 {
        lock(&self.shared.core).window.as_ref().map_or(0, Window::generation)
    }

    fn activate(&mut self, activation: Activation) {
        let Activation { features, queues, irq, ram: _ } = activation;
        let mut core = lock(&self.shared.core);
        // Ports are for a driver that knows of several: another would take the first for a console.
        if core.window.is_none() && features & MULTIPORT == 0 {
            return;
        }
        core.connect(queues);
        if let Some(window) = &mut core.window {
            window.begin(irq);
        }
        drop(core);
        self.shared.attendant.start(Job { queues: Vec::new(), features });
    }

    fn notify(&mut self, _queue: usize) {
        self.shared.attendant.ring();
    }

    fn quiesce(&mut self) {
        self.shared.attendant.stop();
        lock(&self.shared.core).disconnect();
    }

    fn reset(&mut self) {
        lock(&self.shared.core).reset();
    }

    fn save(&self) -> DeviceState {
        DeviceState::Console(lock(&self.shared.core).save())
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let DeviceState::Console(state) = state else {
            return Err(RestoreError::Kind { device: "console" });
        };
        lock(&self.shared.core).restore(state)
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").field("queues", &self.queues).finish_non_exhaustive()
    }
}

impl fmt::Debug for ConsolePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConsolePort({})", self.number)
    }
}
