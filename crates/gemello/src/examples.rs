//! Examples of commands, for their help texts.

pub(crate) const IMAGE_EXAMPLES: &str = "\
Examples:
  gemello run oci:image.tar                  the image's own command; what it writes is thrown away
  gemello run oci:layout:1.2 -- ls -l        an image of several in a folder, another command
  gemello run oci:image.tar --name web       keeps what it writes, for the next run of this name
  gemello images                             what is unpacked, what is kept, and what it takes
  gemello rm web                             the machine's disk
  gemello prune                              every image that no machine is kept of

Images are unpacked once, to images in $XDG_CACHE_HOME/gemello, else ~/.cache/gemello.";

pub(crate) const FETCH_EXAMPLES: &str = "\
Examples:
  gemello fetch debian                       the kernel for virtual machines, and busybox
  gemello fetch debian --flavour full        the kernel for physical machines

apt-get fetches and verifies them. They go to $XDG_CACHE_HOME/gemello, else ~/.cache/gemello;
nothing else of this host is touched.";

pub(crate) const DOCTOR_EXAMPLES: &str = "\
Examples:
  gemello doctor                             the processor, the engine, the cache, the terminal
  gemello doctor > report.txt                to go with a question";

pub(crate) const BENCH_EXAMPLES: &str = "\
Examples:
  gemello bench                              every row, three times: some ten minutes
  gemello bench --list                       what the rows and groups are called
  gemello bench --only user --rounds 1       one group, once
  gemello bench --on native,t1 --json > bench.json";

pub(crate) const RESTORE_EXAMPLES: &str = "\
Examples:
  gemello run debian --save debian.gm        then Ctrl-A s, at any time
  gemello restore debian.gm                  goes on from there, as often as you like
  gemello restore debian.gm --save later.gm
  gemello restore job.gm > output            a command's streams and exit status go on here

Ctrl-A r boots a restored machine again, from the same files.
A disk that was written since is refused: restore its copy with it, and give --accept-disks.";
