#include "engine/pages/svg_chart.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "engine/base/text.h"
#include "engine/pages/page.h"

namespace tessera {
namespace {

constexpr double kWidth = 720.0;
constexpr double kHeight = 300.0;
constexpr double kLeft = 72.0;
constexpr double kRight = 12.0;
constexpr double kTop = 28.0;
constexpr double kBottom = 44.0;
constexpr double kWantedTicks = 6.0;

struct Range {
  double low = 0.0;
  double high = 0.0;

  void include(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  /// Something to divide by, when all values are one.
  void widen() {
    if (high - low < 1e-12) {
      low -= 0.5;
      high += 0.5;
    }
  }
};

std::string coordinate(double value) {
  std::string text(32, '\0');
  const int length = std::snprintf(text.data(), text.size(), "%.1f", value);
  text.resize(static_cast<size_t>(std::clamp(length, 0, 31)));
  return text;
}

std::string label(double x, double y, const std::string& anchor, const std::string& text) {
  return str_cat("<text x=\"",
                 coordinate(x),
                 "\" y=\"",
                 coordinate(y),
                 "\" text-anchor=\"",
                 anchor,
                 "\">",
                 escape_html(text),
                 "</text>\n");
}

std::string line(const ChartPoint& from, const ChartPoint& to, const std::string& name) {
  return str_cat("<line class=\"",
                 name,
                 "\" x1=\"",
                 coordinate(from.x),
                 "\" y1=\"",
                 coordinate(from.y),
                 "\" x2=\"",
                 coordinate(to.x),
                 "\" y2=\"",
                 coordinate(to.y),
                 "\"/>\n");
}

/// 1, 2 or 5 times a power of ten.
double tick_step(const Range& range) {
  const double raw = (range.high - range.low) / kWantedTicks;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (raw <= factor * power) {
      return factor * power;
    }
  }
  return 10.0 * power;
}

class Plot final {
 public:
  explicit Plot(const LineChart& chart) : chart_(chart) {
    bool is_first = true;
    for (const ChartSeries& series : chart.series) {
      for (const ChartPoint& point : series.points) {
        const double y = scaled(point.y);
        x_ = is_first ? Range{0.0, point.x} : x_;
        y_ = is_first ? Range{y, y} : y_;
        is_first = false;
        x_.include(point.x);
        y_.include(y);
      }
    }
    if (chart.is_log) {
      y_ = {std::floor(y_.low), std::ceil(y_.high)};
    }
    x_.widen();
    y_.widen();
  }

  [[nodiscard]] std::string draw() const {
    std::string svg = str_cat("<svg viewBox=\"0 0 ",
                              kWidth,
                              " ",
                              kHeight,
                              "\" role=\"img\" aria-label=\"",
                              escape_html(chart_.title),
                              "\">\n");
    svg += label(kLeft, kTop - 12.0, "start", chart_.title);
    svg += x_axis() + y_axis();
    for (size_t i = 0; i < chart_.series.size(); ++i) {
      svg += curve(chart_.series[i], static_cast<int64_t>(i));
    }
    return svg + "</svg>\n";
  }

 private:
  [[nodiscard]] double scaled(double y) const {
    return chart_.is_log ? std::log10(std::max(y, chart_.log_floor)) : y;
  }
  [[nodiscard]] double place_x(double x) const {
    return kLeft + (x - x_.low) / (x_.high - x_.low) * (kWidth - kLeft - kRight);
  }
  /// Of a scaled value.
  [[nodiscard]] double place_y(double y) const {
    return kHeight - kBottom - (y - y_.low) / (y_.high - y_.low) * (kHeight - kTop - kBottom);
  }

  [[nodiscard]] std::string x_axis() const {
    const double bottom = kHeight - kBottom;
    std::string svg = line({kLeft, bottom}, {kWidth - kRight, bottom}, "axis");
    const double step = tick_step(x_);
    for (double tick = std::ceil(x_.low / step) * step; tick <= x_.high + 1e-9; tick += step) {
      const double x = place_x(tick);
      svg += line({x, bottom}, {x, bottom + 4.0}, "axis");
      svg += label(x, bottom + 17.0, "middle", short_number(tick));
    }
    return svg + label((kLeft + kWidth) / 2.0, kHeight - 8.0, "middle", chart_.x_label);
  }

  [[nodiscard]] std::string y_axis() const {
    std::string svg = line({kLeft, kTop}, {kLeft, kHeight - kBottom}, "axis");
    const double step = chart_.is_log ? 1.0 : tick_step(y_);
    for (double tick = std::ceil(y_.low / step) * step; tick <= y_.high + 1e-9; tick += step) {
      const double value = chart_.is_log ? std::pow(10.0, tick) : tick;
      const double y = place_y(tick);
      svg += line({kLeft, y}, {kWidth - kRight, y}, "grid");
      svg += label(
          kLeft - 6.0, y + 4.0, "end", short_number(std::fabs(value) < step * 1e-6 ? 0.0 : value));
    }
    const double middle = (kTop + kHeight - kBottom) / 2.0;
    return svg + str_cat("<text transform=\"translate(14 ",
                         coordinate(middle),
                         ") rotate(-90)\" text-anchor=\"middle\">",
                         escape_html(chart_.y_label),
                         "</text>\n");
  }

  [[nodiscard]] std::string curve(const ChartSeries& series, int64_t index) const {
    std::string points;
    for (const ChartPoint& point : series.points) {
      points += str_cat(points.empty() ? "" : " ",
                        coordinate(place_x(point.x)),
                        ",",
                        coordinate(place_y(scaled(point.y))));
    }
    return str_cat("<polyline class=\"",
                   series_class(index),
                   "\" points=\"",
                   points,
                   "\"><title>",
                   escape_html(series.name),
                   "</title></polyline>\n");
  }

  const LineChart& chart_;
  Range x_;
  Range y_;  // scaled
};

}  // namespace

std::string series_class(int64_t index) {
  return str_cat("line s", index % kNumChartColours, index < kNumChartColours ? "" : " dashed");
}

std::string render_chart(const LineChart& chart) {
  return Plot(chart).draw();
}

}  // namespace tessera
