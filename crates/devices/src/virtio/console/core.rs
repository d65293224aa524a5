//! The ports and the control queues: what is done with the device locked. No thread, no clock.

use super::control::{DEVICE_READY, MESSAGE, Message, NO_PORT, PORT_OPEN, PORT_READY};
use super::port::{Polled, Port};
use super::saved::ConsoleState;
use super::window::Window;
use crate::saved::{Check, RestoreError};
use crate::virtio::Queue;
use crate::virtio::chain::Broken;

/// See the module.
pub(super) struct Core {
    pub(super) ports: Vec<Port>,
    /// Of a device that is one console, which is its one port. It has no control queues.
    pub(super) window: Option<Window>,
    control: Option<Control>,
    /// For data on its way from the guest.
    buffer: Vec<u8>,
}

/// The control queues (5.3.2), of a driver that uses both.
struct Control {
    to_driver: Polled,
    from_driver: Polled,
}

/// The queues of port `number`, by their numbers (5.3.2): what the guest receives, and what it
/// sends.
pub(super) fn queues_of(number: usize) -> [usize; 2] {
    if number == 0 { [0, 1] } else { [2 * number + 2, 2 * number + 3] }
}

/// Messages of the driver's in a step, so that one that never ends keeps nobody out.
const AT_ONCE: usize = 64;
/// The control queues' numbers.
const CONTROL: [usize; 2] = [2, 3];

impl Core {
    pub(super) fn new(ports: Vec<Port>) -> Self {
        Self { ports, window: None, control: None, buffer: Vec::new() }
    }

    /// One console.
    pub(super) fn console(port: Port) -> Self {
        Self { window: Some(Window::default()), ..Self::new(vec![port]) }
    }

    /// Serves `queues` from now on. Without the control queues there is no port.
    pub(super) fn connect(&mut self, mut queues: Vec<Option<Queue>>) {
        let mut take = |number: usize| queues.get_mut(number).and_then(Option::take);
        let [to_driver, from_driver] = CONTROL.map(&mut take);
        let both = to_driver.zip(from_driver);
        self.control = both.map(|(to_driver, from_driver)| Control {
            to_driver: Polled::new(to_driver),
            from_driver: Polled::new(from_driver),
        });
        for (number, port) in self.ports.iter_mut().enumerate() {
            let [incoming, outgoing] = queues_of(number).map(&mut take);
            port.connect(incoming, outgoing);
            // A console is open as long as there is a driver.
            if self.window.is_some() {
                port.guest_opens(true);
            }
        }
    }

    /// Serves none.
    pub(super) fn disconnect(&mut self) {
        self.control = None;
        if let Some(window) = &mut self.window {
            window.end();
        }
        self.ports.iter_mut().for_each(Port::disconnect);
    }

    /// Serves each queue a little; whether there is more to do. It may `wait` for room.
    pub(super) fn serve(&mut self, wait: bool) -> bool {
        match self.try_serve(wait) {
            Ok(more) => more,
            Err(why) => {
                self.fail(&why);
                false
            }
        }
    }

    fn try_serve(&mut self, wait: bool) -> Result<bool, Broken> {
        // First what the driver says: what it sent before it closed a port is in the ring then.
        let mut more = self.hear()?;
        for port in &mut self.ports {
            more |= port.send(wait, &mut self.buffer)?;
        }
        self.tell()?;
        self.ports.iter_mut().try_for_each(Port::look_for_room)?;
        Ok(more)
    }

    /// Bytes that port `number` takes from the host now.
    pub(super) fn room(&mut self, number: usize) -> usize {
        let room = self.ports[number].room().map_err(|why| self.fail(&why)).unwrap_or_default();
        room.try_into().unwrap_or(usize::MAX)
    }

    /// Gives `bytes` to the guest by port `number`; how many it has got.
    pub(super) fn receive(&mut self, number: usize, bytes: &[u8]) -> usize {
        self.ports[number].receive(bytes).map_err(|why| self.fail(&why)).unwrap_or_default()
    }

    /// The device cannot go on.
    fn fail(&mut self, why: &Broken) {
        let control = self.control.as_ref().map(|control| &control.from_driver.queue);
        if let Some(queue) = control.or_else(|| self.ports.iter().find_map(Port::queue)) {
            queue.fail(why);
        }
        self.disconnect();
    }

    /// Takes what the driver says; whether it may have said more.
    fn hear(&mut self) -> Result<bool, Broken> {
        let Some(Control { from_driver, .. }) = &mut self.control else { return Ok(false) };
        for _ in 0..AT_ONCE {
            let Some(chain) = from_driver.next()? else { return Ok(false) };
            let queue = &from_driver.queue;
            let mut bytes = [0; MESSAGE];
            let whole = chain.readable.len() >= MESSAGE as u64;
            if whole && chain.readable.read(queue.ram(), &mut bytes).is_ok() {
                obey(&mut self.ports, Message::parse(bytes));
            }
            queue.complete(chain.head, 0)?;
        }
        Ok(true)
    }

    /// Tells the driver what it does not know yet, as far as it has buffers.
    fn tell(&mut self) -> Result<(), Broken> {
        let Some(Control { to_driver, .. }) = &mut self.control else { return Ok(()) };
        for port in &mut self.ports {
            while let Some(message) = port.news() {
                let Some(chain) = to_driver.next()? else { return Ok(()) };
                let queue = &to_driver.queue;
                let fits = chain.writable.len() >= message.len() as u64;
                let written = fits && chain.writable.write(queue.ram(), &message).is_ok();
                queue.complete(chain.head, if written { message.len() as u32 } else { 0 })?;
                // One that has no room for it misses it.
                port.told();
            }
        }
        Ok(())
    }

    /// The driver begins anew.
    pub(super) fn reset(&mut self) {
        self.ports.iter_mut().for_each(Port::reset);
    }

    pub(super) fn save(&self) -> ConsoleState {
        let ports = self.ports.iter().map(Port::save).collect();
        ConsoleState { version: ConsoleState::VERSION, ports }
    }

    pub(super) fn restore(&mut self, state: &ConsoleState) -> Result<(), RestoreError> {
        let ConsoleState { version, ports } = state;
        let check = Check::version("console", *version, ConsoleState::VERSION)?;
        check.that(ports.len() == self.ports.len(), "ports", ports.len(), self.ports.len())?;
        self.ports.iter().zip(ports).try_for_each(|(port, state)| port.check(check, state))?;
        self.ports.iter_mut().zip(ports).for_each(|(port, state)| port.restore(state));
        Ok(())
    }
}

/// What the driver says of a port that is not there, or with words that are not known, is ignored.
fn obey(ports: &mut [Port], Message { id, event, value }: Message) {
    let port = ports.get_mut(id as usize);
    match (event, value, port) {
        (DEVICE_READY, 1, None) if id == NO_PORT => ports.iter_mut().for_each(Port::announce),
        (PORT_READY, 1, Some(port)) => port.ready(),
        (PORT_OPEN, _, Some(port)) => port.guest_opens(value != 0),
        _ => tracing::debug!(target: "virtio", id, event, value, "console: ignored"),
    }
}
