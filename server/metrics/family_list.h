// Collects the Prometheus families of one process and writes their text. Every part that counts has
// a function that adds its families, so that every series is there, zeros included, from the start.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/metrics.h"

namespace tessera::metrics {

inline constexpr const char* kContentType = "text/plain; version=0.0.4; charset=utf-8";

class FamilyList final {
 public:
  using Labels = std::vector<std::pair<std::string, std::string>>;

  /// All series carry the model's name. `has_vllm_names`: the families of vllm_families.h follow
  /// the own ones.
  FamilyList(const std::string& model_name, bool has_vllm_names);
  ~FamilyList();
  FamilyList(const FamilyList&) = delete;
  FamilyList& operator=(const FamilyList&) = delete;

  [[nodiscard]] bool has_vllm_names() const noexcept;
  /// Of the process's part whose families follow: parts of one process share families. Empty: none.
  void set_role(std::string role);

  void counter(const char* name, const char* help, const Counter& value);
  void gauge(const char* name, const char* help, double value);
  void histogram(const char* name, const char* help, const Histogram& value);

  /// Families of several series: begin one, then add to it.
  void begin_counters(const char* name, const char* help);
  void begin_gauges(const char* name, const char* help);
  void begin_histograms(const char* name, const char* help);
  void add(const Labels& labels, double value);
  void add(const Labels& labels, const Histogram& value);

  [[nodiscard]] std::string text() const;

 private:
  struct Families;
  std::unique_ptr<Families> families_;
};

}  // namespace tessera::metrics
