//! Draws the last hour as a quipu: one cord per minute, whose length shows the number of events, with one
//! knot per decimal digit of that number. Drawn as SVG on the server, so that the page needs no script for
//! it.

use std::f64::consts::PI;
use std::fmt::Write as _;

use maud::{Markup, html};

use super::format::grouped;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 132.0;
const MARGIN: f64 = 10.0;
/// Height at which the main cord is attached, and by how much it sags.
const TOP: f64 = 7.0;
const SAG: f64 = 8.0;
/// Length of the cord of an empty minute, and the length added for the busiest minute.
const STUB: f64 = 6.0;
const DROP: f64 = 104.0;
const KNOT_GAP: f64 = 6.5;

/// SVG paths of cords and knots; the current minute has paths of its own.
#[derive(Debug, PartialEq)]
struct Paths {
    cords: String,
    knots: String,
    last_cord: String,
    last_knots: String,
}

fn paths(minutes: &[i64]) -> Paths {
    let most = minutes.iter().copied().max().unwrap_or(0).max(1);
    let mut all = Paths {
        cords: String::new(),
        knots: String::new(),
        last_cord: String::new(),
        last_knots: String::new(),
    };
    for (place, &count) in minutes.iter().enumerate() {
        let (cords, knots) = if place + 1 == minutes.len() {
            (&mut all.last_cord, &mut all.last_knots)
        } else {
            (&mut all.cords, &mut all.knots)
        };
        #[expect(clippy::cast_precision_loss, reason = "a drawing")]
        let (along, share) =
            (place as f64 / (minutes.len().max(2) - 1) as f64, count.max(0) as f64 / most as f64);
        let (x, top) = (MARGIN + along * (WIDTH - 2.0 * MARGIN), TOP + SAG * (PI * along).sin());
        let length = STUB + share * DROP;
        let _ = write!(cords, "M{x:.1} {top:.1}v{length:.1}");
        let places = if count > 0 { count.ilog10() + 1 } else { 0 };
        let mut end = top + length;
        for _ in 0..places {
            // A line of zero length: its round end is drawn as the knot.
            let _ = write!(knots, "M{x:.1} {end:.1}h0");
            end -= KNOT_GAP;
            if end < top + KNOT_GAP / 2.0 {
                break;
            }
        }
    }
    all
}

/// The chart as SVG.
pub(super) fn chart(minutes: &[i64]) -> Markup {
    let most = minutes.iter().copied().max().unwrap_or(0);
    let sum: i64 = minutes.iter().sum();
    let label = format!(
        "Events stored in each of the last {} minutes: {} in all, {} in the busiest minute",
        minutes.len(),
        grouped(sum),
        grouped(most)
    );
    let paths = paths(minutes);
    let main = format!("M2 {TOP}Q{} {} {} {TOP}", WIDTH / 2.0, TOP + 2.0 * SAG, WIDTH - 2.0);
    html! {
        svg.chart viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) preserveAspectRatio="none" role="img" aria-label=(label) {
            path.cords d=(paths.cords) {}
            path.last-cord d=(paths.last_cord) {}
            path.main-cord d=(main) {}
            path.knots d=(paths.knots) {}
            path.last-knots d=(paths.last_knots) {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cord_is_as_long_as_its_minute_was_busy_and_has_a_knot_for_each_decimal_place() {
        let drawn = paths(&[0, 50, 100]);
        assert_eq!(drawn.cords, "M10.0 7.0v6.0M360.0 15.0v58.0");
        assert_eq!(drawn.knots, "M360.0 73.0h0M360.0 66.5h0");
        assert_eq!(drawn.last_cord, "M710.0 7.0v110.0");
        assert_eq!(drawn.last_knots.matches("h0").count(), 3);
    }

    #[test]
    fn an_idle_hour_and_no_hour_at_all_can_be_drawn() {
        let drawn = paths(&[0; 60]);
        assert_eq!((drawn.cords.matches('M').count(), drawn.knots.as_str()), (59, ""));
        assert_eq!(paths(&[]).cords, "");
        assert!(paths(&[7]).last_cord.starts_with("M10.0 7.0v110.0"));
    }
}
