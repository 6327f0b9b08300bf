// How a running load stands, on a terminal as one line that redraws itself, elsewhere as a line now
// and then. One thread.
#pragma once

#include <cstdio>
#include <string>

#include "server/bench/load_run.h"

namespace tessera::bench {

/// "12.0 s  sent 240  open 31  done 209  failed 0  1520 events/s".
[[nodiscard]] std::string progress_line(const Progress& now, double events_per_s);

class LiveLine final {
 public:
  /// `out` outlives the object. Draws nothing yet.
  LiveLine(std::FILE* out, bool is_terminal);

  /// Draws when it is time for it.
  void show(const Progress& now);
  /// Leaves the last line as it is.
  void end();

 private:
  std::FILE* out_;
  bool is_terminal_;
  Progress last_;
  bool has_drawn_ = false;
};

}  // namespace tessera::bench
