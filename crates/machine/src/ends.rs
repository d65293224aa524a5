//! The host's ends of the machine's lines, as they are made: what is fed from them, what carries
//! output to them.

use crate::console::{Input, Line, Pump};
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
    /// The guest's time.
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) feeds: Vec<Feed>,
    pub(crate) pumps: Vec<Pump>,
}

impl Ends {
    /// What a serial line writes to, so that it comes to `place`.
    ///
    /// # Errors
    /// The host has no thread left.
    pub(crate) fn serial(
        &mut self,
        place: Box<dyn Write + Send>,
    ) -> io::Result<Box<dyn Write + Send>> {
        let pump = Pump::start(place, self.stopper.clone(), self.kernels())?;
        let writer = pump.writer();
        self.pumps.push(pump);
        Ok(writer)
    }

    /// The time of a kernel that may speak on a line.
    fn kernels(&self) -> Option<Arc<dyn Clock>> {
        Some(Arc::clone(&self.clock))
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
        let (mut made, mut ends) = (Vec::new(), Vec::new());
        for port in ports {
            let (config, end) = self.end(port, lines.next().unwrap_or_default(), None)?;
            made.push(config);
            ends.push(end);
        }
        let console = Console::new(made, service)?;
        let ports = console.ports();
        ports.iter().zip(ends).for_each(|(port, end)| self.join(port, end));
        Ok((console, ports))
    }

    /// A console device that is one console, whose other end is `line`.
    ///
    /// # Errors
    /// The host has no thread left.
    pub(crate) fn hvc(
        &mut self,
        line: Line,
        service: Service,
    ) -> io::Result<(Console, Vec<ConsolePort>)> {
        let port = Port { name: "hvc".into(), input: true, output: true };
        let (config, end) = self.end(&port, line, self.kernels())?;
        let console = Console::one(config, service)?;
        let ports = console.ports();
        ports.iter().zip([end]).for_each(|(port, end)| self.join(port, end));
        Ok((console, ports))
    }

    /// What `port` is made of, and its end, `line`; a kernel that may speak there has a clock.
    fn end(
        &self,
        port: &Port,
        line: Line,
        clock: Option<Arc<dyn Clock>>,
    ) -> io::Result<(PortConfig, PortEnd)> {
        let Port { name, input, output } = port;
        let place = line.output.unwrap_or_else(|| Box::new(io::sink()));
        let place = output.then_some(place);
        let pump =
            place.map(|place| Pump::start(place, self.stopper.clone(), clock)).transpose()?;
        let output = pump.as_ref().map(Pump::port);
        let end = PortEnd { input: line.input.filter(|_| *input), pump };
        Ok((PortConfig { name: name.clone(), output, input: *input }, end))
    }

    /// From now on `port` leads to `end`.
    fn join(&mut self, port: &ConsolePort, PortEnd { input, pump }: PortEnd) {
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
}

/// The end of a port.
struct PortEnd {
    input: Option<Box<dyn Input>>,
    pump: Option<Pump>,
}
