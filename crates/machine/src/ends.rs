//! The host's ends of the machine's lines, as they are made: what is fed from them, what carries
//! output to them.

use crate::console::{Line, Pump};
use crate::device::Port;
use crate::io_thread::{Feed, Receiver};
use crate::power::Stopper;
use devices::time::Clock;
use devices::virtio::Service;
use devices::virtio::console::{Console, ConsolePort, PortConfig};
use std::io::{self, Write};
use std::sync::Arc;

/// What devices ring.
pub(crate) type Wake = Arc<dyn Fn() + Send + Sync>;

/// See the module.
pub(crate) struct Ends {
    /// Has timers and inputs looked after soon.
    pub(crate) wake: Wake,
    pub(crate) stopper: Stopper,
    pub(crate) feeds: Vec<Feed>,
    pub(crate) pumps: Vec<Pump>,
}

impl Ends {
    /// What a serial line writes to, so that it comes to `place`. Its kernel's time is `clock`.
    ///
    /// # Errors
    /// The host has no thread left.
    pub(crate) fn serial(
        &mut self,
        place: Box<dyn Write + Send>,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Box<dyn Write + Send>> {
        let pump = Pump::start(place, self.stopper.clone(), Some(clock))?;
        let writer = pump.writer();
        self.pumps.push(pump);
        Ok(writer)
    }

    /// A console device with these `ports`, whose other ends are the next of `lines`.
    ///
    /// # Errors
    /// The host has no thread left.
    pub(crate) fn console(
        &mut self,
        ports: &[Port],
        lines: &mut impl Iterator<Item = Line>,
        service: Service,
    ) -> io::Result<(Console, Vec<ConsolePort>)> {
        let (mut made, mut inputs, mut pumps) = (Vec::new(), Vec::new(), Vec::new());
        for Port { name, input, output } in ports {
            let line = lines.next().unwrap_or_default();
            let place = line.output.unwrap_or_else(|| Box::new(io::sink()));
            let place = output.then_some(place);
            let pump = place.map(|place| Pump::start(place, self.stopper.clone(), None));
            let pump = pump.transpose()?;
            let output = pump.as_ref().map(Pump::port);
            made.push(PortConfig { name: name.clone(), output, input: *input });
            inputs.push(line.input.filter(|_| *input));
            pumps.push(pump);
        }
        let console = Console::new(made, service)?;
        let ends = console.ports();
        for ((port, input), pump) in ends.iter().zip(inputs).zip(pumps) {
            if let Some(input) = input {
                let wake = Arc::clone(&self.wake);
                port.on_drain(move || wake());
                self.feeds.push(Feed { input, to: Receiver::Port(port.clone()) });
            }
            if let Some(pump) = pump {
                let port = port.clone();
                pump.on_room(move || port.wake());
                self.pumps.push(pump);
            }
        }
        Ok((console, ends))
    }
}
