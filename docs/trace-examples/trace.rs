// SPDX-License-Identifier: MIT
// Writes a trace that `minivmm report` draws: a vCPU faults on page 2, and the VMM converts the page.
// rustc trace.rs && ./trace > my.jsonl && minivmm report my.jsonl
use std::io::{self, Write};
use std::time::Instant;

struct Trace<W: Write> {
    out: W,
    // Rust has no portable CLOCK_MONOTONIC. Times relative to the start are fine, if all are.
    start: Instant,
}

impl<W: Write> Trace<W> {
    fn begin(mut out: W) -> io::Result<Self> {
        writeln!(out, r#"{{"schema":"minivmm.trace/1","clock":"monotonic ns","t":0,"backend":"MyVMM"}}"#)?;
        Ok(Trace { out, start: Instant::now() })
    }

    fn event(&mut self, actor: &str, name: &str, fields: &str) -> io::Result<()> {
        let t = self.start.elapsed().as_nanos();
        writeln!(self.out, r#"{{"t":{t},"actor":"{actor}","event":"{name}",{fields}}}"#)
    }
}

fn main() -> io::Result<()> {
    let range = r#""gpa":8192,"size":4096,"target":"private""#;
    let mut trace = Trace::begin(io::stdout().lock())?;
    trace.event("host", "boot", r#""image":0,"image_bytes":4096,"entry":0,"vcpus":1,"ram_bytes":32768"#)?;
    trace.event("vcpu0", "memory-fault", r#""gpa":8192,"bytes":4096,"wants":"private","verdict":"convert""#)?;
    trace.event("vcpu0", "convert", range)?;
    trace.event("vcpu0", "set-memory-attributes2", &format!(r#"{range},"offset":8192,"errno":0"#))?;
    trace.event("vcpu0", "converted", range)?;
    trace.event("vcpu0", "resume", r#""gpa":8192"#)?;
    trace.event("host", "stop", r#""why":"the guest ended","status":0"#)
}
