"""The catalogue of what can go wrong: what comes in, what happens, and the test that makes it for real.

Words in “quotes” are words of the message; `test_bad_inputs.py` holds that they stand in the test or in the package.
"""

from typing import NamedTuple


class Bad(NamedTuple):
    """One bad thing; `test` is FILE::FUNCTION below `tests/`."""

    input: str
    happens: str
    test: str


IMAGES, CHANNELS = "data/test_images.py", "data/test_channels.py"
CHECK, SETS, SAMPLES = "data/test_check.py", "data/test_sets.py", "data/test_samples.py"
RUN, CONFIG, FILES, TRAIN = "runs/test_run_folder.py", "runs/test_config.py", "test_files.py", "test_train.py"
FAULTS, OPTIONS, RESUME = "test_faults.py", "test_train_options.py", "test_resume.py"
SAFETY, LOAD, NETWORK = "lab/test_safety.py", "lab/test_load.py", "lab/test_network.py"
DECODING = "data/test_decoding.py"
WORK = "lab/test_work.py"
CLUMSY = "test_clumsy.py"
ENGINES = "engines/test_engines.py"

CATALOGUE: dict[str, tuple[Bad, ...]] = {
    "Pictures": (
        Bad("a file of zero bytes", "refused: “is empty (0 bytes)”",
            f"{IMAGES}::test_what_is_no_picture_is_called_by_its_name"),
        Bad("a Git LFS pointer, a web page, an SVG or a PDF that is called .png", "refused by its true name: “looks "
            "like a Git LFS pointer”, with what to do", f"{IMAGES}::test_what_is_no_picture_is_called_by_its_name"),
        Bad("a JPEG, PNG or any other picture cut in half", "refused: “is cut short or damaged”; the remedy is "
            "“--allow-truncated”", f"{IMAGES}::test_a_file_cut_in_half_is_refused"),
        Bad("the same with `--allow-truncated`", "“what could be decoded is shown”",
            "test_cli.py::test_a_cut_picture_is_shown_where_that_is_allowed"),
        Bad("a PNG with one flipped byte in its pixels", "refused: “cut short or damaged”",
            f"{IMAGES}::test_one_flipped_byte_in_a_png_is_never_read_in_silence"),
        Bad("a PNG with one flipped byte anywhere", "refused, but for the length and checksum of its empty end",
            f"{IMAGES}::test_whichever_byte_of_a_png_is_flipped_it_is_refused_or_the_same"),
        Bad("a picture that may not be read", "“no permission to read it”",
            f"{IMAGES}::test_a_picture_that_may_not_be_read"),
        Bad("16-bit grey", "read with all its levels: “16-bit grey was divided by 65535”",
            f"{IMAGES}::test_sixteen_bit_grey_keeps_all_its_levels"),
        Bad("a CMYK JPEG of Adobe, whose inks are inverted", "read; colours within 3/255 of the reference",
            f"{IMAGES}::test_cmyk_jpeg_of_adobe_has_the_right_colours"),
        Bad("a palette with a transparent colour", "read as RGBA: “a palette became RGBA”",
            f"{IMAGES}::test_palette_with_transparency_becomes_rgba"),
        Bad("colours hidden below full transparency", "never shown: “transparency was composited on white”",
            f"{CHANNELS}::test_colours_hidden_by_full_transparency_do_not_show"),
        Bad("each of the eight EXIF orientations", "turned upright and said; boxes and masks turn with it",
            "data/test_formats.py::test_boxes_and_masks_turn_with_their_picture"),
        Bad("damaged EXIF data", "the picture is read; “Pillow warns: ” tells the rest",
            f"{IMAGES}::test_damaged_exif_is_a_note_and_not_an_end"),
        Bad("several frames: GIF, WebP, TIFF, PNG", "“the first of 3 frames was taken”",
            f"{IMAGES}::test_the_first_of_several_frames"),
        Bad("BMP, TIFF, WebP, AVIF, whatever the name says", "read",
            f"{IMAGES}::test_lossless_formats_give_the_pixels_back"),
        Bad("a header that says 100,000 x 100,000",
            "refused before decoding: “the limit is 40,000,000”; 413 in the lab",
            f"{IMAGES}::test_a_bomb_is_refused_before_it_is_decoded"),
        Bad("a real bomb: 40,000 x 40,000 in 200 kB", "the same", f"{IMAGES}::test_a_real_bomb_is_refused"),
        Bad("more pixels than our limit and fewer than Pillow's", "the same, whatever the process does with warnings",
            f"{IMAGES}::test_sizes_that_pillow_lets_through_are_refused"),
        Bad("EPS, FLI, ICO, PPM or TGA that is called .png", "refused: those decoders are never reached",
            f"{IMAGES}::test_formats_off_the_list_are_not_decoded"),
        Bad("NaN in a TIFF", "refused: “1 NaN or infinite”", f"{IMAGES}::test_nan_in_a_tiff_is_refused"),
        Bad("a grey picture for a network that takes RGB", "“the grey channel was repeated three times”",
            f"{CHANNELS}::test_grey_is_repeated_and_said"),
        Bad("a picture that makes the decoder crash, hang or fill the memory", "a process of its own ends, in the lab "
            "and for data sets: “made the decoder crash”, and the next picture is decoded",
            f"{DECODING}::test_a_crash_ends_one_process"),
        Bad("one damaged or deadly file among many for `predict`", "named, with exit 2; what was said of the others is "
            "kept: “made the decoder crash”",
            f"{DECODING}::test_a_picture_that_kills_its_decoder_does_not_lose_what_is_said_of_the_others"),
        Bad("a missing file, a folder, a pipe, a loop of links", "each refused by name",
            f"{IMAGES}::test_missing_folder_and_pipe"),
    ),
    "Data sets": (
        Bad("empty class folders", "all listed at once: “no pictures in the classes bee, eel”",
            f"{CHECK}::test_all_empty_classes_are_listed_at_once"),
        Bad("the same with `--allow-empty`", "are classes like others, of which nothing is learnt",
            f"{FAULTS}::test_empty_classes_are_kept_where_that_is_allowed"),
        Bad("a link to a folder above it, or a second link to a picture", "not followed; each file counts once",
            f"{CHECK}::test_links_are_not_followed_and_each_file_counts_once"),
        Bad("a link to /etc/passwd, or `../secret.png` in an annotation", "never opened: “lies outside the folder”",
            f"{CHECK}::test_a_picture_outside_the_folder_is_refused"),
        Bad("`._x.png`, Thumbs.db, .DS_Store, __MACOSX", "passed over and counted",
            f"{CHECK}::test_what_systems_leave_behind_is_passed_over"),
        Bad("one damaged picture among good ones", "found before the first step, by name",
            f"{CHECK}::test_damaged_pictures_stop_at_the_start"),
        Bad("accents, spaces, quotes and % in names of folders", "work everywhere",
            f"{CHECK}::test_names_with_spaces_quotes_and_signs_are_names"),
        Bad("an archive in place of a folder", "refused, never unpacked: “unpack an archive and give its folder”",
            f"{FAULTS}::test_an_archive_is_not_unpacked"),
        Bad("label 7 or -1 of three classes", "found before the first step: “sample 1 has label 7”",
            f"{SETS}::test_a_label_outside_the_classes_is_found_at_the_start"),
        Bad("NaN in pixels", "“sample 1 holds NaN”", f"{SETS}::test_nan_pixels_and_empty_sets_are_refused"),
        Bad("nothing but ignored labels", "“every pixel of the masks is 255”",
            f"{CHECK}::test_masks_of_nothing_but_ignored_pixels_are_refused"),
        Bad("COCO without an image_id, with ids twice, unknown categories, no annotations", "each by its place: "
            "“annotations[2]: has no image_id”", f"{CHECK}::test_what_is_wrong_in_coco_is_named"),
        Bad("COCO with crowds, gaps in its categories, pictures without a box", "told; the map of ids is shown",
            f"{CHECK}::test_gaps_in_categories_are_closed_and_the_map_is_told"),
        Bad("an annotation file of 2 GiB", "refused unread: “the limit is 536,870,912”",
            f"{CHECK}::test_a_file_that_is_too_large_is_refused_unread"),
        Bad("YOLO with values above 1 or below 0, with 4 or 6 columns",
            "by file and line: “labels/0.txt:2: has 4 columns”",
            f"{CHECK}::test_what_is_wrong_in_yolo_is_named_with_its_line"),
        Bad("an empty YOLO file", "background", f"{CHECK}::test_an_empty_file_is_background"),
        Bad("YAML with `!!python/object`, or a billion laughs", "“is no plain YAML”; nothing in it runs or grows",
            f"{CHECK}::test_what_is_wrong_in_the_yaml_is_named"),
        Bad("XML with entities", "“declares a document type or an entity”", f"{CHECK}::test_entities_are_refused"),
        Bad("a box of no width, outside of its picture, with NaN, or ending before it begins", "refused before the "
            "first step: “lies outside the picture”", f"{SAMPLES}::test_wrong_boxes_are_named_before_the_first_step"),
        Bad("a box with label 9 of two classes", "“box 0 has label 9, but there are 2 classes”",
            f"{SAMPLES}::test_wrong_boxes_are_named_before_the_first_step"),
        Bad("a picture without a box", "is background",
            f"{SAMPLES}::test_a_batch_is_normalised_and_keeps_pictures_without_boxes"),
        Bad("mask value 200 of two classes", "values are counted: “200 (3 pixels)”; 255 is to be ignored",
            f"{CHECK}::test_values_of_masks_that_are_no_class_are_counted"),
        Bad("one class, one sample", "“has 1 class folders”, “too few samples”",
            f"{CHECK}::test_one_class_and_one_sample_are_too_few"),
        Bad("a batch larger than the set", "“use 1293 or less”",
            f"{OPTIONS}::test_what_does_not_go_together_is_refused_before_the_first_step"),
        Bad("a batch of one for batch normalisation", "“batch normalisation needs two pictures a step”",
            f"{FAULTS}::test_a_batch_of_one_is_too_few_for_batch_normalisation"),
    ),
    "Weights, networks, settings": (
        Bad("a pickle that runs code", "refused, and not run", f"{RUN}::test_a_pickle_that_runs_code_is_never_run"),
        Bad("a whole module, a bare pickle",
            "refused: “holds objects that are no tensors”, and how to save a state_dict",
            f"{FAULTS}::test_files_that_hold_more_than_tensors_are_refused"),
        Bad("a TorchScript archive", "refused: “is a TorchScript archive, which is code”; as a model, in the lab too, "
            "“is a file, but no network that convscope exported”",
            f"{FAULTS}::test_files_that_hold_more_than_tensors_are_refused"),
        Bad("a checkpoint of zero bytes, cut, or of something else", "“last-1.ckpt is sound: rename it to last.ckpt”",
            f"{RUN}::test_a_damaged_checkpoint_names_the_sound_one"),
        Bad("one flipped byte in a checkpoint or in weights", "its SHA-256 is not in the manifest: “is damaged”",
            f"{RUN}::test_damaged_weights_are_refused"),
        Bad("a run folder of a newer convscope", "“has format 2, which is not known here; upgrade convscope”",
            f"{FAULTS}::test_a_newer_run_folder_is_refused_kindly"),
        Bad("a manifest or a log of a run that holds anything else", "“: is damaged ”, with what is wrong in it",
            f"{RUN}::test_a_manifest_with_anything_else_in_it_is_damaged"),
        Bad("a device or a pipe in the place of settings, weights or a checkpoint", "refused, not waited for",
            f"{RUN}::test_a_pipe_in_the_place_of_a_file_is_not_waited_for"),
        Bad("safetensors cut, with a header of 2^62 bytes, a tensor of 4 TB, overlapping tensors", "refused before "
            "anything is allocated", f"{FAULTS}::test_hostile_safetensors_are_refused"),
        Bad("weights of another network", "what is missing, left over and of another shape: “holds weights of another "
            "network”", f"{RUN}::test_weights_of_another_network_are_listed"),
        Bad("a resumed run with other settings", "“the run began with other settings”, and which; `--override` goes on",
            f"{TRAIN}::test_a_folder_with_a_run_is_not_written_over"),
        Bad("ONNX that keeps weights in `../secret`, by an absolute path or a detour", "“keeps weights in other files, "
            "which are not read”", f"{ENGINES}::test_weights_in_other_files_are_not_read"),
        Bad("an exported file that is empty, noise or cut", "refused by its name",
            f"{ENGINES}::test_a_cut_file_is_refused"),
        Bad("a tar of pictures (WebDataset) with `../`, absolute names, links, devices", "read where it lies, nothing "
            "is unpacked; links and devices are passed over",
            "data/test_shards.py::test_nothing_of_a_hostile_shard_leaves_it"),
        Bad("TOML with a key twice, an unknown key, a wrong type", "“is not TOML”, “did you mean 'epochs'”",
            f"{CONFIG}::test_a_bad_file_is_named"),
        Bad("a model of `package.module:function` in a request to the lab", "no request names a model",
            f"{LOAD}::test_a_request_never_names_a_model"),
        Bad("a kernel larger than its input, stride 0, dilation 0, groups that do not divide", "the formula with its "
            "numbers, and what fits: “the kernel of 6 is larger than the padded input 5”",
            "steps/test_wish.py::test_bad_input_is_one_sentence_and_exit_2"),
    ),
    "The command line": (
        Bad("nonsense in any option of any command: empty, huge, negative, NaN, a folder, a device", "done, or refused "
            "in a sentence; no file stays", f"{CLUMSY}::"
            "test_nonsense_in_any_option_is_done_or_refused_in_a_sentence_and_leaves_nothing"),
        Bad("an `--out` that is the picture which is read, or a link to it",
            "refused: “is the picture that is read, and would be lost”",
            f"{CLUMSY}::test_a_picture_is_never_written_over_by_what_is_made_of_it"),
        Bad("an `--out` folder of `predict` in which the pictures lie", "drawings take names that are free",
            f"{CLUMSY}::test_drawings_do_not_replace_the_pictures_that_they_are_of"),
        Bad("names with line ends, escape codes, quotes, broken letters", "shown spelt out, so that no terminal obeys "
            "them; written and read as they are", f"{CLUMSY}::test_names_of_any_letters_are_shown_and_written"),
        Bad("a command that fails after it made its folders", "takes them back, if they are empty",
            f"{CLUMSY}::test_what_failed_leaves_no_folder"),
        Bad("an output that is full", "exit 1: “the output: No space left on device”",
            f"{CLUMSY}::test_an_output_that_is_full_is_said"),
        Bad("a terminal that lacks letters, or has no width", "letters are spelt out; such a width counts for none",
            f"{CLUMSY}::test_letters_that_a_terminal_lacks_are_spelt_out"),
        Bad("a current folder that was removed", "“the current folder: is gone”",
            f"{CLUMSY}::test_a_folder_that_was_removed_is_said"),
        Bad("sizes beyond all memory", "exit 1: “memory ran out; use a smaller size”",
            f"{CLUMSY}::test_memory_that_runs_out_is_said"),
        Bad("compiled kernels in the cache that are cut, changed or another user's", "never loaded, built anew",
            "layers/fast/test_compiled.py::test_a_library_that_is_not_what_was_built_is_never_loaded"),
    ),
    "Training and the machine": (
        Bad("a loss that becomes NaN", "stops at that step with the numbers of its samples; “the last good checkpoint "
            "was kept”", f"{TRAIN}::test_nan_stops_at_its_step_names_the_samples_and_keeps_the_checkpoint"),
        Bad("weights that become NaN", "“nothing was saved”",
            f"{TRAIN}::test_weights_that_are_not_finite_are_never_saved"),
        Bad("a full disk while a checkpoint is saved", "exit 1, “No space left on device”; both old checkpoints are "
            "kept, nothing half-written stays", f"{FAULTS}::test_a_really_full_disk_keeps_both_checkpoints"),
        Bad("a disk that fills up while a run trains", "exit 1, “No space left on device”; with room it resumes, and "
            "its weights are those of the undisturbed run", f"{FAULTS}::test_a_disk_that_fills_up_while_a_run_trains"),
        Bad("a disk without room for the checkpoints of a run", "refused before the first step: “MiB left on its disk”",
            f"{FAULTS}::test_a_disk_without_room_is_refused_before_the_first_step"),
        Bad("SIGKILL while a file is written", "the old file or the new one",
            f"{FILES}::test_a_killed_writer_leaves_a_whole_file"),
        Bad("SIGKILL at any moment of training and saving", "resumes; the weights are those of the undisturbed run, "
            "bit for bit", f"{RESUME}::test_a_stopped_and_resumed_run_ends_bit_for_bit_as_the_undisturbed_one"),
        Bad("SIGINT, SIGTERM", "the step is finished and saved; exit 130, 143",
            f"{RESUME}::test_the_runs_were_really_stopped"),
        Bad("a second SIGINT", "stops at once", f"{TRAIN}::test_a_second_signal_stops_at_once"),
        Bad("a decoder of training pictures that the system kills", "“killed by the system, often because memory ran "
            "out”, with the picture; there are no other data workers",
            f"{DECODING}::test_a_decoder_that_the_system_kills_is_told_apart"),
        Bad("a training picture on which the decoder crashes", "exit 2 with its name before the first step: “made the "
            "decoder crash”", f"{DECODING}::test_a_picture_that_kills_its_decoder_is_named_by_the_run_that_meets_it"),
        Bad("the same where a run is resumed", "checkpoints stay as they were",
            f"{DECODING}::test_a_run_that_is_resumed_onto_such_a_picture_keeps_its_checkpoints"),
        Bad("memory that runs out", "exit 1: “memory ran out with batch_size 1293”, with the most that was in use",
            f"{FAULTS}::test_memory_that_really_runs_out"),
        Bad("an output folder that is read-only, a file, below a file, or too long", "refused before the data are "
            "read: “give another --out”", f"{FILES}::test_a_read_only_folder_is_refused"),
        Bad("two runs into one folder", "“another run is writing there”",
            f"{RUN}::test_a_folder_is_held_by_one_run_and_freed_by_death"),
        Bad("a GPU that is not there", "“is not on this machine”; no silent CPU",
            f"{TRAIN}::test_a_gpu_that_is_not_there_is_refused"),
        Bad("a long run", "memory and open files do not grow", f"{FAULTS}::test_a_long_run_does_not_grow"),
    ),
    "The lab": (
        Bad("Host: evil.com, 127.0.0.1.evil.com, `localhost.`, none, two", "400",
            f"{SAFETY}::test_other_hosts_are_refused"),
        Bad("a websocket, from any origin", "closed", f"{SAFETY}::test_websockets_are_refused"),
        Bad("a request of another origin, Origin: null, another site", "403, and no CORS header at all",
            f"{SAFETY}::test_other_origins_are_refused"),
        Bad("no token, a wrong one, one in the Referer", "403", f"{SAFETY}::test_without_the_token_nothing_is_told"),
        Bad("`..`, `%2e%2e`, `..%5c`, `//etc/passwd`, `%00`, a UNC path", "404: no path is made from a request",
            f"{SAFETY}::test_no_path_leads_out"),
        Bad("an upload of 1 GB, told or chunked", "413, counted as it comes",
            f"{SAFETY}::test_a_body_is_limited_by_what_comes"),
        Bad("a layer, unit or page that is -1, 10^9, 1e9, NaN or text", "400 or 404 with the valid range",
            f"{SAFETY}::test_a_layer_that_is_none_is_refused"),
        Bad("200 clients at once, slow ones and half-open ones", "200, or 503 with Retry-After; memory is bounded, and "
            "a click still answers", f"{LOAD}::test_a_crowd_with_slow_and_half_open_clients"),
        Bad("work for seconds, asked for by many at once", "a click is answered before it; beyond eight, “try again in "
            "a second”", f"{WORK}::test_a_click_does_not_wait_for_what_takes_seconds"),
        Bad("a person who leaves while the network works for them", "the work ends at its next step",
            "lab/test_steps.py::test_work_is_told_and_ends_when_who_asked_leaves"),
        Bad("a lab that ends while a page is open", "“does not answer”; what was shown stays",
            "lab/test_waiting.py::test_a_lab_that_ends_is_said_and_the_last_view_stays"),
        Bad("300 half-open requests", "others are served; the silent are closed",
            f"{SAFETY}::test_half_open_requests_do_not_hold_up_others"),
        Bad("NaN and infinity in an answer", "null in JSON, counted on the page",
            f"{NETWORK}::test_dead_maps_and_nan_are_shown_and_counted"),
        Bad("a port in use", "the next free one; with `--port`, exit 1",
            f"{SAFETY}::test_the_next_port_is_taken_unless_one_is_given"),
        Bad("2,000 layers, 4,096 channels, a map of 1024 rows", "paged and thinned out; the values stay true",
            "lab/test_large_networks.py::test_many_channels_come_in_pages"),
        Bad("a class, layer or file called `<img src=x onerror=alert(1)>`", "is text",
            "report/test_page.py::test_class_names_are_shown_as_text"),
        Bad("an iframe of another site", "403, and “frame-ancestors 'none'”",
            f"{SAFETY}::test_every_answer_of_every_route_has_the_headers"),
        Bad("`--host 0.0.0.0`", "“add --allow-remote if that is wanted”",
            f"{SAFETY}::test_another_host_needs_the_permission"),
        Bad("bytes of any kind in addresses, headers and bodies", "a status below 500",
            f"{LOAD}::test_any_request_gets_a_status_of_ours"),
    ),
}  # fmt: skip
