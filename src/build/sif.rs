//! An image as one file, for clusters that have Apptainer and no engine: <https://apptainer.org/docs/user/main/docker_and_oci.html>.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::adapters::child::Program;
use crate::context::Context;
use crate::error::{Context as _, Error, Kind, Result};

/// The program that does it.
const APPTAINER: &str = "apptainer";
/// How long it may take: it fetches and packs gigabytes.
const TIMEOUT: Duration = Duration::from_secs(2 * 60 * 60);
/// How many of its last lines are told where it fails.
const TOLD: usize = 5;

/// Has Apptainer fetch an image and convert it; the file is there when it is whole.
///
/// # Errors
/// [`Kind::Usage`] where there is such a file; [`Kind::Image`] where there is no Apptainer, or it fails, with its last words.
pub async fn convert(context: &Context, reference: &str, file: &Path) -> Result<()> {
    let shown = file.display();
    if file.symlink_metadata().is_ok() {
        return Err(Error::new(Kind::Usage, format!("`{shown}` is there already"))
            .hint("name another file, or remove that one"));
    }
    let image = format!("docker://{reference}");
    let temporary = Temporary::beside(file);
    let mut command = Command::new(APPTAINER);
    command.args(["pull", "--force"]).arg(&temporary.0).arg(&image);
    let mut program = Program::start(command).map_err(|source| match source.kind() {
        ErrorKind::NotFound => Error::new(Kind::Image, format!("there is no `{APPTAINER}` here"))
            .hint("install it: https://apptainer.org/docs/admin/main/installation.html")
            .hint(format!("or run this where it is: `{APPTAINER} pull {shown} {image}`")),
        _ => Error::new(Kind::Image, format!("cannot start `{APPTAINER}`")).with_source(source),
    })?;
    let group = program.group();
    let unfinished = Temporary(temporary.0.clone());
    let armed = context.arm(async move {
        group.end().await;
        drop(unfinished);
    });
    let step = context.ui.step(format!("converting `{reference}`"));
    let mut last = Vec::new();
    let running = async {
        while let Some(line) = program.line().await {
            context.ui.verbose(&line);
            last.push(line);
            if last.len() > TOLD {
                last.remove(0);
            }
        }
        program.wait().await
    };
    let status = tokio::time::timeout(TIMEOUT, running).await;
    drop(step);
    let failed =
        |what: String| Error::new(Kind::Image, format!("cannot make `{shown}`: `{APPTAINER}` {what}"));
    let status = status
        .map_err(|_| failed(format!("took longer than {} hours", TIMEOUT.as_secs() / 3600)))?
        .context(Kind::Image, || format!("cannot wait for `{APPTAINER}`"))?;
    if !status.success() {
        return Err(failed(format!("ended with {status}")).hint(format!("it said:\n{}", last.join("\n"))));
    }
    std::fs::rename(&temporary.0, file).map_err(|source| Error::io("write", file, source))?;
    context.disarm(armed);
    Ok(())
}

/// A file that goes unless it was given another name.
struct Temporary(PathBuf);

impl Temporary {
    fn beside(file: &Path) -> Temporary {
        let mut name = OsString::from(".");
        name.push(file.file_name().unwrap_or_default());
        name.push(format!(".{}.tmp", std::process::id()));
        Temporary(file.with_file_name(name))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a good end it is not there any more.
        let _ = std::fs::remove_file(&self.0);
    }
}
