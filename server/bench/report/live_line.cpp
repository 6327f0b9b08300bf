#include "server/bench/report/live_line.h"

#include <algorithm>

#include "engine/base/text.h"
#include "server/bench/report/rows.h"

namespace tessera::bench {
namespace {

constexpr double kTerminalPeriodS = 0.5;
constexpr double kLinePeriodS = 10.0;

}  // namespace

std::string progress_line(const Progress& now, double events_per_s) {
  return str_cat(fixed(std::max(now.elapsed_s, 0.0), 1),
                 " s  sent ",
                 now.sent,
                 "  open ",
                 now.open,
                 "  done ",
                 now.completed,
                 "  failed ",
                 now.failed,
                 "  ",
                 fixed(events_per_s, 0),
                 " events/s");
}

LiveLine::LiveLine(std::FILE* out, bool is_terminal) : out_(out), is_terminal_(is_terminal) {}

void LiveLine::show(const Progress& now) {
  const double passed_s = now.elapsed_s - last_.elapsed_s;
  if (passed_s < (is_terminal_ ? kTerminalPeriodS : kLinePeriodS)) {
    return;
  }
  const std::string line =
      progress_line(now, static_cast<double>(now.events - last_.events) / passed_s);
  std::fprintf(out_, is_terminal_ ? "\r%-78s" : "%s\n", line.c_str());
  std::fflush(out_);
  last_ = now;
  has_drawn_ = true;
}

void LiveLine::end() {
  if (is_terminal_ && has_drawn_) {
    std::fputs("\n", out_);
  }
}

}  // namespace tessera::bench
