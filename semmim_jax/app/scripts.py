"""What the pages do in the browser: Gradio runs these as `js_on_load` of its HTML components.

Nothing is fetched. `element` is the component, `trigger` sends an event to Python.
"""

from semmim_jax.app.pictures import MAX_BYTES

# A click on what names a picture or has a number sends it. (Gradio takes a key `path` for a file of
# its cache.)
PICK = """
element.addEventListener('click', event => {
  const chosen = event.target.closest('[data-picture], [data-number]');
  if (chosen && element.contains(chosen)) trigger('pick', {...chosen.dataset});
});
"""

# The word under the pointer, or the one that has the focus, shows its maps.
WORDS = """
const choose = event => {
  const word = event.target.closest('[data-word]');
  if (!word) return;
  for (const part of element.querySelectorAll('[data-word], [data-map]')) {
    const number = part.dataset.word ?? part.dataset.map;
    part.classList.toggle('chosen', number === word.dataset.word);
  }
};
for (const kind of ['pointerover', 'focusin', 'click']) element.addEventListener(kind, choose);
"""

UPLOAD_PAGE = """
<label class="drop"><b>Drop a picture</b> or click to choose a file
<input type="file" accept=".jpg,.jpeg,.png,.webp,.bmp" aria-label="upload a picture"></label>
"""

# The file goes to Python inside an event, not by Gradio's upload, which writes files to disk.
UPLOAD = """
const input = element.querySelector('input');
const label = element.querySelector('label');
const send = file => {
  if (!file) return;
  const name = file.name;
  if (file.size > LIMIT) {
    trigger('upload', {name: name, long: true});
    return;
  }
  const reader = new FileReader();
  reader.onload = () => trigger('upload', {name: name, data: reader.result.split(',')[1] ?? ''});
  reader.readAsDataURL(file);
};
input.addEventListener('change', () => { send(input.files[0]); input.value = ''; });
label.addEventListener('dragover', event => event.preventDefault());
label.addEventListener('drop', event => {
  event.preventDefault();
  send(event.dataTransfer.files[0]);
});
""".replace('LIMIT', str(MAX_BYTES))
