// A line chart as inline SVG: axes with labels, ticks, one line a series. Colours come from the
// page's style sheet (classes s0, s1, ...), so that light and dark are its matter.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tessera {

struct ChartPoint {
  double x = 0.0;
  double y = 0.0;
};

struct ChartSeries {
  std::string name;
  std::vector<ChartPoint> points;
};

struct LineChart {
  std::string title;
  std::string x_label = {};
  std::string y_label = {};
  bool is_log = false;
  double log_floor = 1e-6;  ///< lower values are drawn there, when is_log
  std::vector<ChartSeries> series = {};
};

/// Classes beyond which colours repeat, dashed.
inline constexpr int64_t kNumChartColours = 8;

/// The class attribute's value for a series: "line s3" or "line s3 dashed".
[[nodiscard]] std::string series_class(int64_t index);

/// An <svg> element that scales to its container's width.
[[nodiscard]] std::string render_chart(const LineChart& chart);

}  // namespace tessera
