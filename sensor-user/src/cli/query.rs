//! `tokenscope query`: SQL over what is kept, to be read only.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::{Context, Failure, terminal, trace};
use crate::store::query::{self, Limits, QueryError, VIEWS};

/// Longest that a query may be let run, in seconds.
const LONGEST_S: u64 = 3600;

/// Most rows that may be asked for.
const MOST_ROWS: usize = 1_000_000;

/// Ask the store in SQL
///
/// SELECT only, over the views `alerts`, `incidents`, `uses` and `tokens`; `--schema` shows their columns. Reads the
/// store of this host, whether a sensor runs or not.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tokenscope query --schema
  tokenscope query \"SELECT time, severity, rule, principal FROM alerts ORDER BY time DESC LIMIT 10\"
  tokenscope query \"SELECT principal, sum(count) AS n FROM uses GROUP BY 1 ORDER BY n DESC LIMIT 20\" -o json
  tokenscope query \"SELECT * FROM uses WHERE refused > 100\" --csv > refused.csv")]
pub(super) struct Arguments {
    /// The statement
    #[arg(value_name = "SELECT", required_unless_present = "schema")]
    sql: Option<String>,
    /// Show the views and their columns
    #[arg(long, conflicts_with = "sql")]
    schema: bool,
    /// Answer as comma-separated values
    #[arg(long)]
    csv: bool,
    /// Rows at most
    #[arg(long, value_name = "ROWS", default_value_t = 10_000)]
    limit: usize,
    /// Seconds at most
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
    /// Where the sensor keeps its state [default: `state.dir` of the configuration]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

pub(super) fn query(context: &Context, arguments: &Arguments) -> Result<(), Failure> {
    let json = context.wants_json("query")?;
    if json && arguments.csv {
        return Err(Failure::Usage("say --csv or -o json".into()));
    }
    if !(1..=LONGEST_S).contains(&arguments.timeout) || !(1..=MOST_ROWS).contains(&arguments.limit) {
        let bounds = format!("--timeout is from 1 to {LONGEST_S}, --limit from 1 to {MOST_ROWS}");
        return Err(Failure::Usage(bounds));
    }
    let Some(sql) = arguments.sql.as_deref().filter(|_| !arguments.schema) else {
        return Ok(terminal::answer(VIEWS)?);
    };
    let (_, dir) = trace::state(context, arguments.state_dir.as_deref())?;
    let shipped = Limits::default();
    let limits = Limits {
        time: Duration::from_secs(arguments.timeout),
        rows: arguments.limit,
        // A thousand bytes a row is what a query over alerts with their JSON is like, some of the time.
        bytes: shipped.bytes.max(arguments.limit.saturating_mul(1000)),
        ..shipped
    };
    let answer = query::query(&dir, sql, &limits).map_err(|error| match error {
        QueryError::Refused | QueryError::Sql(_) => Failure::Usage(error.to_string()),
        error => Failure::Failed(error.into()),
    })?;
    let text = if arguments.csv {
        answer.csv()
    } else if json {
        format!("{:#}\n", answer.json())
    } else {
        answer.compact()
    };
    terminal::answer(&text)?;
    if let Some(why) = answer.cut {
        terminal::complain(&format!("warning: there may be more rows: {why}; see --limit\n"));
    }
    if answer.left_out > 0 {
        let parts = answer.left_out;
        terminal::complain(&format!(
            "warning: {parts} parts of the history were left out, the oldest or damaged\n"
        ));
    }
    Ok(())
}
