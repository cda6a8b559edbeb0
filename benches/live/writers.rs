use crate::results::Results;
use crate::system::System;
#[derive(clap::Args)]
pub struct Options {}
pub async fn measure(_: &System, _: &Options, _: &mut Results) -> anyhow::Result<()> {
    Ok(())
}
