#include "server/metrics/family_list.h"

#include <algorithm>
#include <limits>
#include <utility>

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

namespace tessera::metrics {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

struct FamilyList::Families {
  ClientMetric::Label model_label;
  std::string role;
  bool has_vllm_names = false;
  std::vector<MetricFamily> list;
  size_t current = 0;

  void begin(const char* name, const char* help, MetricType type) {
    const auto same_name = [name](const MetricFamily& family) { return family.name == name; };
    current = static_cast<size_t>(std::find_if(list.begin(), list.end(), same_name) - list.begin());
    if (current == list.size()) {
      list.push_back({name, help, type, {}});
    }
  }
  ClientMetric& add(const Labels& labels) {
    ClientMetric& metric = list[current].metric.emplace_back();
    metric.label.push_back(model_label);
    if (!role.empty()) {
      metric.label.push_back({"role", role});
    }
    for (const auto& [name, value] : labels) {
      metric.label.push_back({name, value});
    }
    return metric;
  }
};

FamilyList::FamilyList(const std::string& model_name, bool has_vllm_names)
    : families_(std::make_unique<Families>()) {
  families_->model_label = {"model_name", model_name};
  families_->has_vllm_names = has_vllm_names;
}

FamilyList::~FamilyList() = default;

bool FamilyList::has_vllm_names() const noexcept {
  return families_->has_vllm_names;
}

void FamilyList::set_role(std::string role) {
  families_->role = std::move(role);
}

void FamilyList::counter(const char* name, const char* help, const Counter& value) {
  begin_counters(name, help);
  add({}, static_cast<double>(value.value()));
}

void FamilyList::gauge(const char* name, const char* help, double value) {
  begin_gauges(name, help);
  add({}, value);
}

void FamilyList::histogram(const char* name, const char* help, const Histogram& value) {
  begin_histograms(name, help);
  add({}, value);
}

void FamilyList::begin_counters(const char* name, const char* help) {
  families_->begin(name, help, MetricType::Counter);
}

void FamilyList::begin_gauges(const char* name, const char* help) {
  families_->begin(name, help, MetricType::Gauge);
}

void FamilyList::begin_histograms(const char* name, const char* help) {
  families_->begin(name, help, MetricType::Histogram);
}

void FamilyList::add(const Labels& labels, double value) {
  ClientMetric& metric = families_->add(labels);
  metric.counter.value = value;  // the family's type says which of the two is written
  metric.gauge.value = value;
}

void FamilyList::add(const Labels& labels, const Histogram& value) {
  ClientMetric::Histogram& out = families_->add(labels).histogram;
  const auto bounds = value.upper_bounds();
  uint64_t count = 0;
  for (size_t i = 0; i <= bounds.size(); ++i) {
    count += static_cast<uint64_t>(value.bucket(i));
    out.bucket.push_back(
        {count, i == bounds.size() ? std::numeric_limits<double>::infinity() : bounds[i]});
  }
  out.sample_count = count;
  out.sample_sum = value.sum();
}

std::string FamilyList::text() const {
  return prometheus::TextSerializer().Serialize(families_->list);
}

}  // namespace tessera::metrics
