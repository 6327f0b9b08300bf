#include "engine/weights/safetensors.h"

#include <utility>

#include "engine/base/text.h"

namespace tessera {
namespace {

constexpr int64_t kLengthBytes = 8;

// The first 8 bytes: length of the JSON header, little-endian.
uint64_t read_header_length(const char* data) {
  uint64_t length = 0;
  for (int i = 0; i < kLengthBytes; ++i) {
    length |= static_cast<uint64_t>(static_cast<unsigned char>(data[i])) << (8 * i);
  }
  return length;
}

Status check_header_length(uint64_t length, int64_t file_bytes) {
  if (length > static_cast<uint64_t>(kMaxSafetensorsHeaderBytes)) {
    return invalid_argument(str_cat("header of ",
                                    length,
                                    " bytes, at most ",
                                    kMaxSafetensorsHeaderBytes,
                                    " are allowed (is this a safetensors file?)"));
  }
  if (static_cast<int64_t>(length) > file_bytes - kLengthBytes) {
    return invalid_argument(str_cat(
        "header of ", length, " bytes in a file of ", file_bytes, " (is the file cut short?)"));
  }
  return Status::ok();
}

}  // namespace

Result<SafetensorsFile> SafetensorsFile::open(const std::string& path) {
  TESSERA_TRY(MappedFile file, MappedFile::open(path));
  if (file.num_bytes() < kLengthBytes) {
    return invalid_argument(
        str_cat(path, ": ", file.num_bytes(), " bytes are too few for a safetensors file"));
  }
  const uint64_t length = read_header_length(file.data());
  TESSERA_RETURN_IF_ERROR(check_header_length(length, file.num_bytes()).with_context(path));
  const auto data_offset = kLengthBytes + static_cast<int64_t>(length);
  auto entries = parse_safetensors_header({file.data() + kLengthBytes, static_cast<size_t>(length)},
                                          file.num_bytes() - data_offset);
  if (!entries.is_ok()) {
    return entries.status().with_context(path);
  }
  return SafetensorsFile(path, std::move(file), data_offset, std::move(entries).value());
}

std::map<std::string, std::string> SafetensorsFile::metadata() const {
  return parse_safetensors_metadata(
      {file_.data() + kLengthBytes, static_cast<size_t>(data_offset_ - kLengthBytes)});
}

kernels::ConstTensorView SafetensorsFile::view(const SafetensorsEntry& entry) const {
  kernels::ConstTensorView view;
  view.dtype = entry.dtype;
  view.rank = entry.rank;
  view.shape = entry.shape;
  if (entry.begin == entry.end) {
    return view;  // a size is 0, the others may be too large to multiply
  }
  view.data = file_.data() + data_offset_ + entry.begin;
  int64_t step = 1;
  for (int axis = entry.rank - 1; axis >= 0; --axis) {
    view.stride[static_cast<size_t>(axis)] = step;
    step *= entry.shape[static_cast<size_t>(axis)];
  }
  return view;
}

void SafetensorsFile::release(const SafetensorsEntry& entry) const noexcept {
  if (entry.begin != entry.end) {
    file_.release(file_.data() + data_offset_ + entry.begin, entry.end - entry.begin);
  }
}

}  // namespace tessera
