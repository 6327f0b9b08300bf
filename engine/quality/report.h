// The results of a run over several modes and lengths, as a table for a terminal and as JSON; the
// page of curves is in report_page.h.
#pragma once

#include <string>
#include <vector>

#include "engine/quality/decode_mode.h"
#include "engine/quality/quality.h"
#include "engine/quality/summary.h"

namespace tessera {

/// One mode at one pair of lengths.
struct QualityCell {
  DecodeMode mode;
  std::string basis;  ///< name of the transform that it became
  Quality quality;
};

struct QualityReport {
  std::string model;  ///< name for people
  std::string model_fingerprint;
  std::string text;  ///< file's name
  int64_t text_tokens = 0;
  std::string dtype;
  int64_t num_windows = 0;
  std::vector<QualityCell> cells;  ///< by lengths, then in the modes' order
};

/// Fields of the table for people: a row of headings, then one a cell.
[[nodiscard]] std::vector<std::vector<std::string>> table_rows(const QualityReport& report);

/// The same in lines of aligned columns.
[[nodiscard]] std::string render_table(const QualityReport& report);

/// All figures, per-window means and curves. README.md explains the keys.
[[nodiscard]] std::string render_json(const QualityReport& report);

}  // namespace tessera
